package chain

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tonutils "github.com/xssnick/tonutils-go/tvm/cell"

	"chrysalis/runtime/cell"
)

// recorded reads a file of the main network's data that tonutils-go's module carries for its own tests.
func recorded(t *testing.T, file string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/xssnick/tonutils-go").Output()
	if err != nil {
		t.Fatalf("finding tonutils-go's module: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), file))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestMainnetBlock reads the header of a real block and the state that a real proof shows.
func TestMainnetBlock(t *testing.T) {
	var fixture struct {
		Block struct {
			Seqno uint32 `json:"seqno"`
			Root  string `json:"root_hash"`
		} `json:"block"`
		BOC string `json:"block_boc_base64"`
	}
	if err := json.Unmarshal(recorded(t, "tvm/testdata/tvm_replay_fat_block_66519406.json"), &fixture); err != nil {
		t.Fatal(err)
	}
	whole := must(tonutils.FromBOC(must(base64.StdEncoding.DecodeString(fixture.BOC))))
	b := tonutils.NewMerkleProofBuilder(whole)
	s := b.Root().MustBeginParse()
	must(s.LoadRef())
	must(s.LoadRefCell())
	must(s.LoadRef())
	proof := must(cell.ParseOne(must(b.CreateProof()).ToBOC()))
	root := [32]byte(must(hex.DecodeString(fixture.Block.Root)))
	h, err := openBlock(proof, root, Mainnet.GlobalID)
	if err != nil {
		t.Fatal(err)
	}
	if h.seqno != fixture.Block.Seqno || h.workchain != Basechain || h.shard != wholeShard || h.keyBlock || h.time != 1778681725 {
		t.Errorf("got %+v, want block %d", h, fixture.Block.Seqno)
	}
	if _, err := cell.NewHash(h.stateUpdate); err != nil {
		t.Error(err)
	}
}

// TestMainnetValidators reads a real config: who signs the masterchain, and how their order is made.
func TestMainnetValidators(t *testing.T) {
	config, err := cell.ParseOne(recorded(t, "tlb/testdata/blockchain_config_mainnet.boc"))
	if err != nil {
		t.Fatal(err)
	}
	set, err := validatorSet(config)
	if err != nil {
		t.Fatal(err)
	}
	if len(set) != 100 {
		t.Errorf("%d validators sign, want 100", len(set))
	}
	if _, err := shuffles(config); err != nil {
		t.Error(err)
	}
	if got := shuffled(set, 7); len(got) != len(set) {
		t.Errorf("%d validators in the order of a round, want %d", len(got), len(set))
	}
}

// TestNetworks: what is compiled in is complete, and no network's block is another's.
func TestNetworks(t *testing.T) {
	seen := map[BlockID]string{}
	for _, n := range Networks {
		k := n.Anchor.Key
		if n.Anchor.Last != k || k.Workchain != Masterchain || k.Shard != wholeShard || k.Seqno == 0 || k.RootHash == ([32]byte{}) ||
			k.FileHash == ([32]byte{}) {
			t.Errorf("%s: anchor is %+v", n.Name, n.Anchor)
		}
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s begin with one block", n.Name, other)
		}
		seen[k] = n.Name
	}
	if len(Networks) == 0 || Mainnet.GlobalID != -239 {
		t.Error("the main network is not as it is")
	}
}
