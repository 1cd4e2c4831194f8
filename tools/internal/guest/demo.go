package guest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/erofs/go-erofs"

	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/role"
)

// DemoConfig is the config of the demonstration: the tiny model on the CPU engine, on a local chain whose addresses belong
// to nobody.
func DemoConfig() config.Measured {
	return config.Measured{
		Identity: config.Identity{
			Network:      config.Local,
			RootContract: ton.Address{Account: [32]byte(bytes.Repeat([]byte{0xc0}, 32))},
			PayoutOwner:  ton.Address{Account: [32]byte(bytes.Repeat([]byte{0x0b}, 32))},
			Sealing:      config.SealTPM,
			Instance:     config.InstanceSealed,
		},
		Service: config.Service{
			Engine: config.Engine{
				Argv: []string{"/usr/bin/llama-server", "-m", role.EngineModel + "/tiny.gguf", "--host", role.EngineRun + "/" + role.EngineSocketName,
					"-np", "2", "-c", "2048", "-t", "1", "--no-ui", "--no-slots", "--cache-ram", "0", "--no-cache-prompt",
					"--no-kv-unified", "--offline", "--log-disable", "--no-warmup"},
				Env:         []string{"GLIBC_TUNABLES=glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"},
				MemoryBytes: 128 << 20,
			},
			Model:  config.Model{Name: "tiny"},
			GPU:    config.GPUNone,
			Limits: config.Limits{RequestBytes: 256 << 10, AnswerTokens: 512, Concurrent: 2, ContextTokens: 1024},
			Price: config.Terms{Payment: config.PayCharge, Price: ton.Price{NanotonPerToken: 20, PromptWeight: ton.WeightOne,
				CachedWeight: ton.WeightOne, CompletionWeight: ton.WeightOne, ReasoningWeight: ton.WeightOne}},
			Wipe: config.WipeFreed,
		},
	}
}

// DemoConfigOn is DemoConfig on a platform. A TD has nothing to seal to, so its keys end with the boot, and the owner takes that into
// account.
func DemoConfigOn(p measure.Platform) config.Measured {
	m := DemoConfig()
	switch p {
	case measure.TDX:
		m.Identity.Sealing, m.Identity.Stranding = config.SealNothing, config.StrandingAccepted
	case measure.SEVSNP:
		m.Identity.Sealing = config.SealSNP
	}
	return m
}

// CheckModel opens the model's volume and checks that each file of the model that the engine is told of is in it: otherwise the engine
// does not come up, a minute after the boot began.
func CheckModel(e config.Engine, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	tree, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("%s is no volume: %v", file, err)
	}
	for _, word := range e.Argv {
		name, named := strings.CutPrefix(word, role.EngineModel+"/")
		if !named {
			continue
		}
		if _, err := fs.Stat(tree, name); err != nil {
			var has []string
			entries, _ := fs.ReadDir(tree, ".")
			for _, e := range entries[:min(len(entries), 8)] {
				has = append(has, e.Name())
			}
			return fmt.Errorf("the engine is told to read %s, and %s has %s: pack the model that the config means, or name this one in the engine's arguments (--config)",
				word, file, strings.Join(has, ", "))
		}
	}
	return nil
}
