package observe

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// Beside is another process of the same machine, whose metrics [Recorder.Handler] serves with its own: a machine is
// one target for Prometheus.
type Beside struct {
	client *http.Client
	url    string
	up     prometheus.Gauge
}

// besideTime bounds what a scrape waits for another process.
const besideTime = 2 * time.Second

// NewBeside returns the process that answers client at url. `shoal_process_up` says whether it did.
func NewBeside(process string, client *http.Client, url string) *Beside {
	return &Beside{client: client, url: url, up: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_process_up", Help: "Whether a process of this machine gave its metrics.",
		ConstLabels: prometheus.Labels{"process": process},
	})}
}

// Gather implements [prometheus.Gatherer]. A process that is not there has no metrics, which is no error.
func (b *Beside) Gather() ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(context.Background(), besideTime)
	defer cancel()
	all, err := b.ask(ctx)
	if err != nil {
		b.up.Set(0)
		return nil, nil
	}
	b.up.Set(1)
	return all, nil
}

// ask has the metrics in protobuf, in which nothing is lost.
func (b *Beside) ask(ctx context.Context) ([]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url, nil)
	if err != nil {
		return nil, err
	}
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	req.Header.Set("Accept", string(format))
	res, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", b.url, res.Status)
	}
	var all []*dto.MetricFamily
	for d := expfmt.NewDecoder(res.Body, format); ; {
		f := new(dto.MetricFamily)
		if d.Decode(f) != nil {
			return all, nil // its end; a message that was cut off tells what it held
		}
		all = append(all, f)
	}
}
