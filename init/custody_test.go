package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"chrysalis/init/internal/sealing"
	"chrysalis/init/internal/services"
)

// TestSettled: silence is asked again over another connection, and nothing else is.
func TestSettled(t *testing.T) {
	silent := fmt.Errorf("%w: %w", services.ErrUnsettled, services.ErrSilent)
	refused, unreachable := fmt.Errorf("%w: refused", services.ErrUnsettled), errors.New("nobody there")
	ended, end := context.WithCancel(t.Context())
	end()
	for _, tt := range []struct {
		name      string
		ctx       context.Context
		connected bool
		dials     []error // what each connection is answered with
		says      []error
		want      error
		told      int
	}{
		{"at once", t.Context(), true, nil, []error{nil}, nil, 1},
		{"in a later boot", t.Context(), false, []error{nil}, []error{nil}, nil, 1},
		{"after two that were lost", t.Context(), true, []error{nil, nil}, []error{silent, silent, nil}, nil, 3},
		{"refused", t.Context(), true, nil, []error{refused}, refused, 1},
		{"lost, and refused then", t.Context(), true, []error{nil}, []error{silent, refused}, refused, 2},
		{"lost, and nobody there", t.Context(), true, []error{unreachable}, []error{silent}, unreachable, 1},
		{"lost, and no time left", ended, true, nil, []error{silent}, silent, 1},
	} {
		var giver sealing.Vault
		if tt.connected {
			giver = sealing.Ephemeral{}
		}
		dials, says, told := slices.Clone(tt.dials), slices.Clone(tt.says), 0
		err := settled(tt.ctx, giver, func() (sealing.Vault, error) {
			err := dials[0]
			dials = dials[1:]
			return sealing.Ephemeral{}, err
		}, func(sealing.Vault) error {
			told++
			err := says[0]
			says = says[1:]
			return err
		})
		if !errors.Is(err, tt.want) || told != tt.told || len(dials) != 0 {
			t.Errorf("%s: got %v, told %d times, %d connections left, want %v and %d times", tt.name, err, told, len(dials), tt.want, tt.told)
		}
	}
}
