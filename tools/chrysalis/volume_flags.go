package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/guest"
)

// volumeFlags name the volumes of a guest's models, in the config's order.
type volumeFlags struct{ engines, models []string }

// add adds the flags. when says, before what they name, what they are for.
func (f *volumeFlags) add(cmd *cobra.Command, when, which string) {
	cmd.Flags().StringArrayVar(&f.engines, "engine", []string{"build/volumes/engine.img"},
		when+"engine volume"+which+"; of several models one for all of them, or once for each in the config's order")
	cmd.Flags().StringArrayVar(&f.models, "model", []string{"build/volumes/model.img"}, when+"model volume"+which+"; of several models once for each in the config's order")
}

// pairs are the volumes of each model.
func (f *volumeFlags) pairs() (all []guest.Volumes, err error) {
	if n := len(f.engines); n != 1 && n != len(f.models) {
		return nil, fmt.Errorf("--engine is given %d times and --model %d times, want one engine for all models, or one for each", n, len(f.models))
	}
	for i, model := range f.models {
		all = append(all, guest.Volumes{Engine: f.engines[min(i, len(f.engines)-1)], Model: model})
	}
	return all, nil
}
