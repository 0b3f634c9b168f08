//go:build !linux

package sidecar

import (
	"context"
	"errors"
)

type probe struct{ dir, exe string }

func (probe) close() {}

func (probe) run(context.Context) *failure {
	return &failure{step: stepNamespaces, err: errors.New("need Linux")}
}
