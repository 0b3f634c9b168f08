package manifest_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/shoalrun/shoal/manifest"
)

// An independent validator takes what the parser takes, by the published schema, and refuses the rest.
func TestSchemaAgreesWithParser(t *testing.T) {
	for _, kind := range manifest.Schemas() {
		s := compile(t, kind)
		good, bad := "testdata/good/*.yaml", "testdata/bad/*.yaml"
		if kind == "workspace" {
			good, bad = "testdata/good-work/*.yaml", "testdata/bad-work/*.yaml"
		}
		for _, file := range glob(t, good) {
			if err := s.Validate(load(t, file)); err != nil {
				t.Errorf("%s: the schema refuses what the parser takes: %v", file, err)
			}
		}
		for _, file := range glob(t, bad) {
			if filepath.Base(file) != "many.yaml" {
				continue // mistakes that a schema cannot tell, or that are no YAML
			}
			if s.Validate(load(t, file)) == nil {
				t.Errorf("%s: the schema takes what the parser refuses", file)
			}
		}
	}
}

// Single mistakes, which the schema must tell by itself so that an editor underlines them.
func TestSchemaRefuses(t *testing.T) {
	s := compile(t, "manifest")
	for _, line := range []string{
		"owners: me", "service: Orders", "run: true", "instances: 0", "instances: many", "grace: 10", "grace: soon",
		"listen: {8080: htp}", "listen: {8080: {default: true}}", "health: /healthz", "calls: {a: {time: 1s}}", "needs: {db: {local: true}}",
		"egress: [https://a.com]", "egress: [a.com]", "env: {1X: y}", "env: {X: [1]}", "publishes: a", "publishes: [a b]", "subscribes: {t: GET /x}",
		"publishes: {a: {durability: none}}", "publishes: {a: {ordering: customer}}", "publishes: {a: {retension: 1h}}", "subscribes: {t: {pull: true, replay: true}}",
		"subscribes: {t: {pull: true, retry: {attempts: 0}}}", "subscribes: {t: {push: GET /x}}", "subscribes: {t: push}", "schedules: {a: {topic: t}}", "publishes: [t]\nschedules: {a: {topic: t, cron: daily}}", "subscribes: {t: {grpc: shop.A}}", "subscribes: {t: {grpc: /shop.A/B}}", "subscribes: {t: {grpc: shop.A/*}}",
		"allow: []", "allow: [{methods: [GET]}]", "allow: [{caller: a, methods: [get]}]", "expose: 3", "workers: [a]",
	} {
		text := "service: a\nrun: x\n" + line + "\n"
		if line == "service: Orders" || line == "run: true" {
			text = line + "\nservice2: x\n"
		}
		if s.Validate(decode(t, []byte(text))) == nil {
			t.Errorf("the schema takes %q", line)
		}
		if _, err := manifest.Parse("shoal.yaml", []byte(text)); err == nil {
			t.Errorf("the parser takes %q", line)
		}
	}
}

func TestSchemaUnknown(t *testing.T) {
	if _, err := manifest.Schema("nothing"); err == nil {
		t.Error("a schema for nothing")
	}
}

func compile(t *testing.T, kind string) *jsonschema.Schema {
	t.Helper()
	text, err := manifest.Schema(kind)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("shoal.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("shoal.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func load(t *testing.T, file string) any { return decode(t, read(t, file)) }

// decode reads YAML as an editor does: into what JSON can hold.
func decode(t *testing.T, data []byte) any {
	t.Helper()
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
