//go:build unix

package e2e

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// TestSchemaIsObeyedByEachWayIn refuses what breaks a topic's schema, as an event, as a message and over NATS, and takes what obeys it.
func TestSchemaIsObeyedByEachWayIn(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, natsShop)
		w.up()
		conn, err := grpc.NewClient(w.hostEnv("PUBSUB_EMULATOR_HOST"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
		defer conn.Close()
		_, err = pubsubpb.NewSchemaServiceClient(conn).CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/test", SchemaId: "person",
			Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: `{"type": "record", "name": "P", "fields": [{"name": "name", "type": "string"}]}`}})
		must(t, err)
		publisher := pubsubpb.NewPublisherClient(conn)
		const people = "projects/test/topics/people"
		_, err = publisher.CreateTopic(t.Context(), &pubsubpb.Topic{Name: people,
			SchemaSettings: &pubsubpb.SchemaSettings{Schema: "projects/test/schemas/person", Encoding: pubsubpb.Encoding_JSON}})
		must(t, err)
		operator, err := nats.Connect(w.hostEnv("NATS_URL"), nats.Timeout(patience))
		must(t, err)
		defer operator.Close()
		ways := map[string]func(data string) (refused bool, why string){
			"as an event": func(data string) (bool, string) {
				_, errs, code := w.try("publish", "people", "-d", data)
				return code != 0, errs
			},
			"as a message": func(data string) (bool, string) {
				_, err := publisher.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: people, Messages: []*pubsubpb.PubsubMessage{{Data: []byte(data)}}})
				return status.Code(err) == codes.InvalidArgument, status.Convert(err).Message()
			},
			"over NATS": func(data string) (bool, string) {
				m, err := operator.Request("people", []byte(data), patience)
				must(t, err)
				return strings.Contains(string(m.Data), `"code":400,"err_code":10003`), string(m.Data)
			},
		}
		for name, publish := range ways {
			if refused, why := publish(`{"age": 5}`); !refused || !strings.Contains(why, "person") {
				t.Errorf("%s, what breaks the schema: refused %v: %s", name, refused, why)
			}
			if refused, why := publish(`{"name": "Ada"}`); refused {
				t.Errorf("%s, what obeys the schema: %s", name, why)
			}
		}
		for _, topic := range w.status().Topics {
			if topic.Name == "people" && topic.Published != uint64(len(ways)) {
				t.Errorf("the topic has %d messages", topic.Published)
			}
		}
	})
}
