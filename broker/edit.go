package broker

import (
	"context"
	"slices"
	"strings"
)

// EditDeadLetter lets change edit the Message of a dead letter: its data, attributes and ordering key, and keeps that.
func (b *Broker) EditDeadLetter(ctx context.Context, id string, change func(*Message) error) (*DeadLetter, error) {
	b.finishRedrives(ctx)
	b.letters.Lock()
	defer b.letters.Unlock()
	d, err := b.DeadLetter(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := change(&d.Message); err != nil {
		return nil, err
	}
	if err := b.checkMessage(&d.Message); err != nil {
		return nil, err
	}
	r, err := d.edited()
	if err == nil {
		err = b.obeySchema(r)
	}
	if err != nil {
		return nil, err
	}
	d.Record = dated(r.encode(), r.time)
	if err := b.keepLetter(d); err != nil {
		return nil, unsaved(err, "dead letter %s is not changed", id)
	}
	d.show(r)
	return d, nil
}

// obeySchema says why a record may not be in its topic as its schema is now, or notes how it is to be read.
func (b *Broker) obeySchema(r *record) (err error) {
	c, _ := b.topicConfig(r.Topic)
	if r.plain {
		r.Attributes, err = b.checkSchema(c.Schema, r.Data, r.Attributes)
		return err
	}
	r.schema, err = b.checkSchema(c.Schema, r.Data, nil)
	return err
}

// edited is the record that Message describes.
func (d *DeadLetter) edited() (*record, error) {
	r, err := d.record()
	if err != nil {
		return nil, err
	}
	m := &d.Message
	r.Data, r.key = m.Data, m.OrderingKey
	if r.plain {
		r.Attributes = m.Attributes
		return r, nil
	}
	as := record{plain: true, caller: d.Caller, Event: Event{Topic: d.Topic, Attributes: m.Attributes}}
	if err := r.checkBinding(m.Attributes); err != nil {
		return nil, err
	}
	e := as.event(r.ID)
	r.ID, r.Source, r.Type, r.ContentType, r.Attributes = e.ID, e.Source, e.Type, e.ContentType, e.Attributes
	if err := r.check(); err != nil {
		return nil, invalid("attributes", "the edited dead letter is no CloudEvent: %v", err)
	}
	return r, nil
}

// checkBinding says which of an edited CloudEvent's attributes is missing, or none that it may have.
func (r *record) checkBinding(attributes map[string]string) error {
	own := []string{ceSpecVersion, ceID, ceSource, ceType}
	for _, name := range own {
		if attributes[name] == "" {
			return invalid("attributes", "a CloudEvent cannot be without %s: give it a value, or leave it as it is", name)
		}
	}
	if version := attributes[ceSpecVersion]; version != specVersion {
		return invalid("attributes", "%s must be %s, not %q", ceSpecVersion, specVersion, version)
	}
	for name, value := range attributes {
		short, prefixed := strings.CutPrefix(name, cePrefix)
		if _, ours := r.schema[name]; ours || name == ceContentType || slices.Contains(own, name) {
			continue
		}
		if !prefixed {
			return invalid("attributes", "%q is no attribute of a CloudEvent: those begin with %s, such as %s%s", name, cePrefix, cePrefix, name)
		}
		if err := checkAttribute(short, value); err != nil {
			return invalid("attributes", "the attribute %s cannot be: %v", name, err)
		}
	}
	return nil
}
