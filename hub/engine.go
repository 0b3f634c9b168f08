package hub

import (
	"path/filepath"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// external says where the broker's messages are to lie: as `shoal up --nats` or shoal.work has it. What shoal.work says of the same servers, a password say, holds.
func (h *hub) external() fleet.Engine {
	e := h.settings.Engine
	if asked := (fleet.Engine{URL: h.NATS}); h.NATS != "" && asked.String() != e.String() {
		e = asked
	}
	return besideFile(h.Workspace, e)
}

// besideFile makes the files of an engine absolute: they are relative to shoal.work.
func besideFile(file string, e fleet.Engine) fleet.Engine {
	for _, path := range []*string{&e.Creds, &e.CA, &e.Cert, &e.Key, &e.System} {
		if *path != "" && !filepath.IsAbs(*path) && !strings.Contains(*path, "://") {
			*path = filepath.Join(filepath.Dir(file), *path)
		}
	}
	return e
}
