package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/verity"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/release"
)

// Volumes names the engine and model volumes of the demo; it lies beside them as volumes.json.
type Volumes struct {
	From   register.Digest `json:"from"` // what they were made from
	Lock   string          `json:"lock"` // state of the engine lock, as in a manifest
	Engine config.Volume   `json:"engine"`
	Model  config.Volume   `json:"model"`
}

// BuildVolumes builds the demo's engine and model volumes into the folder out, with their names in volumes.json.
func (b *Builder) BuildVolumes(ctx context.Context, out string) (Volumes, error) {
	v, err := b.buildVolumes(ctx, out)
	if err != nil {
		return Volumes{}, fmt.Errorf("building volumes: %w", err)
	}
	return v, nil
}

func (b *Builder) buildVolumes(ctx context.Context, out string) (v Volumes, err error) {
	tree, err := b.Tools(ctx)
	if err != nil {
		return v, err
	}
	l, err := b.packages(ctx, "engine")
	if err != nil {
		return v, err
	}
	model, err := os.ReadFile(filepath.Join(b.Source, "image", "model", "tiny.gguf"))
	if err != nil {
		return v, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return v, err
	}
	key, err := volumesKey(l, model, b.lockState("engine"))
	if err != nil {
		return v, err
	}
	if v, err := readVolumes(out, key); err == nil {
		b.Progress.Step(packEngine, 0).Done("unchanged")
		b.Progress.Step(packModel, 0).Done("unchanged")
		return v, nil
	}
	engine, err := b.buildEngine(ctx, tree, l, filepath.Join(out, "engine.img"))
	if err != nil {
		return v, err
	}
	weights, err := b.buildModel(ctx, filepath.Join(out, "model.img"))
	if err != nil {
		return v, err
	}
	v = Volumes{From: key, Lock: b.lockState("engine"), Engine: engine, Model: weights}
	data, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return v, err
	}
	return v, os.WriteFile(filepath.Join(out, "volumes.json"), append(data, '\n'), 0o644)
}

// volumesKey names what the volumes are made from: engine lock, model, and the packer, which is in this program.
func volumesKey(l lock.Lock, model []byte, state string) (register.Digest, error) {
	program, err := os.Executable()
	if err != nil {
		return register.Digest{}, err
	}
	self, _, err := release.HashFile(program)
	if err != nil {
		return register.Digest{}, err
	}
	return sha256.Sum256(fmt.Appendf(nil, "%x %x %s %s", l.Digest(), sha256.Sum256(model), self, state)), nil
}

// readVolumes returns the volumes of an earlier build from the same inputs, if its files are still there.
func readVolumes(dir string, key register.Digest) (v Volumes, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "volumes.json"))
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v, json.RejectUnknownMembers(true)); err != nil {
		return v, err
	}
	if v.From != key {
		return v, errors.New("made from other inputs")
	}
	for name, volume := range map[string]config.Volume{"engine.img": v.Engine, "model.img": v.Model} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return v, err
		}
		if info.Size() <= int64(volume.Blocks)*verity.BlockSize {
			return v, fmt.Errorf("%s is cut short", name)
		}
	}
	return v, nil
}
