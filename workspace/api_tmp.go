package workspace

import (
	"context"

	"github.com/shoalrun/shoal/fleet"
)

func (w *Workspace) Watch(ctx context.Context, changed func(service string)) error { panic("soon") }
func Clone(ctx context.Context, fleetFile, dir string, progress func(fleet.Progress)) (string, error) {
	panic("soon")
}

// Guess is a manifest made by looking at a repository.
type Guess struct {
	File      string   // where Init writes it
	Text      []byte   // of shoal.yaml
	Sentences []string // what was guessed, and from what
}

func Look(dir string) (*Guess, error) { panic("soon") }
func Init(dir string) (*Guess, error) { panic("soon") }
