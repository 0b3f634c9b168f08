package hub

import (
	"context"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/broker/pubsub"
	"github.com/shoalrun/shoal/fleet"
)

// messages answers the verbs about where the broker's messages lie.
func (h *hub) messages() api.Messages {
	return api.Messages{Move: h.move, Backup: h.backup, Restore: h.restore, Adopt: h.broker.Adopt}
}

// move takes what shoal.work says of the same servers, a password say, where the verb does not say it.
func (h *hub) move(ctx context.Context, r api.MoveRequest, tell func(string) error) (fleet.EngineMove, error) {
	to := r.Engine
	if known := h.external(); known.String() == to.String() {
		to = mergeEngine(to, known)
	}
	return h.broker.Move(ctx, to, r.Dry, func(text string) { _ = tell(text) })
}

// mergeEngine fills what a does not say from b.
func mergeEngine(a, b fleet.Engine) fleet.Engine {
	a.URL = b.URL
	for _, f := range []struct{ to, from *string }{{&a.Creds, &b.Creds}, {&a.CA, &b.CA}, {&a.Cert, &b.Cert}, {&a.Key, &b.Key}, {&a.System, &b.System}} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	if len(a.Monitor) == 0 {
		a.Monitor = b.Monitor
	}
	return a
}

func (h *hub) backup(ctx context.Context, path string) (fleet.EngineMove, error) {
	return h.broker.Backup(ctx, path, pubsub.StoredSchemas)
}

// restore lets this process become another, which reads what was restored.
func (h *hub) restore(ctx context.Context, path string, force bool) (fleet.EngineMove, error) {
	done, err := h.broker.Restore(ctx, path, force)
	if h.broker.Restored() {
		if anew := h.becomes(ctx, h.Executable); anew != nil && err == nil {
			err = anew
		}
	}
	return done, err
}
