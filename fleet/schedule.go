package fleet

import "time"

// Schedule publishes a message again and again, as a service's manifest declares it.
type Schedule struct {
	Name  string `json:"name"`
	Line  int    `json:"line,omitempty"` // of the manifest
	Topic string `json:"topic"`
	// Cron is when: five fields of crontab(5), `@hourly` and its like, or `@every 90s`.
	Cron string `json:"cron"`
	// Zone is the time zone that Cron means, of the IANA database. Default: UTC.
	Zone       string            `json:"zone,omitempty"`
	Data       string            `json:"data,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Key        string            `json:"ordering_key,omitempty"`
}

// Cron is a schedule in force, for people.
type Cron struct {
	Name       string            `json:"name"` // SERVICE/NAME of a manifest's, else the operator's own
	Topic      string            `json:"topic"`
	Owner      string            `json:"owner"`              // the service, or `operator`
	Declared   string            `json:"declared,omitempty"` // where the manifest has it, as FILE:LINE
	Spec       string            `json:"spec"`               // the line of the crontab; `CRON_TZ=ZONE` before it names a time zone, else it is UTC
	Next       time.Time         `json:"next,omitzero"`
	Last       time.Time         `json:"last,omitzero"` // the time for which it published last; at first, when it was made
	Data       []byte            `json:"data,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Key        string            `json:"ordering_key,omitempty"`
}
