package chrysalis

import (
	"path"
	"strconv"
	"strings"
	"testing"
)

const module = "chrysalis"

// storeys gives each folder its storey, ground (0) to roof (6). The longest matching prefix decides. On the ground are the words
// and forms that many speak in; above them the rooms, each with one subject; then the two halves of a judgement, what is
// expected and what is shown; then connections; then the programs of the guest; then the workstation's.
var storeys = map[string]int{
	"tools":   6,
	"init":    5,
	"runtime": 5, "runtime/enginehost": 5, "runtime/client": 5,
	"attest/ratls": 4, "runtime/chain/fetch": 4,
	"attest/collateral": 4,
	"attest/dialect":    2, "attest/handover": 2,
	"attest":  3,
	"measure": 2, "runtime/settle": 2,
	"runtime/secret": 2, "runtime/role": 3, "runtime/envelope/guest": 2, "runtime/envelope": 4,
	"measure/verity": 1, "measure/eventlog": 1, "measure/tdvf": 1, "measure/snp": 1, "measure/volume": 1, "measure/config": 1,
	"measure/bootdisk": 1, "measure/cocoon": 1,
	"measure/pe": 1, "measure/uki": 1, "measure/igvm": 1, "measure/varstore": 1,
	"attest/tdx": 1, "attest/sevsnp": 1, "attest/vtpm": 1, "attest/nvidia": 1, "attest/release": 1,
	"init/gpuhelper": 1,
	"runtime/claim":  1, "runtime/chain": 1, "runtime/receipt": 1, "runtime/envelope/internal": 1,
	"measure/register": 0, "measure/ton": 0, "measure/fault": 0, "measure/pubkey": 0, "measure/engines": 0, "attest/check": 0, "attest/pki": 0, "attest/evidence": 0, "init/status": 0, "init/disks": 0, "runtime/api": 0, "runtime/numbers": 0, "runtime/cell": 0,
	// The software platform signs what attest judges, so it stands beside attest; only tests may reach it.
	"attest/attesttest": 3,
}

// sideways lists the imports within one storey that are allowed: importer, then imported, each with its reason.
var sideways = map[[2]string]string{
	{"measure/volume", "measure/config"}:   "a volume is named as the config names it",
	{"measure/volume", "measure/verity"}:   "a volume is an image followed by its verity tree",
	{"measure/uki", "measure/pe"}:          "a unified kernel image is a PE image, and so is the kernel in it",
	{"measure/igvm", "measure/snp"}:        "a file's pages make a launch digest",
	{"measure/igvm", "measure/tdvf"}:       "a file's pages make MRTD",
	{"measure/varstore", "measure/tdvf"}:   "GUIDs are written there",
	{"measure/snp", "measure/tdvf"}:        "one firmware image has one table of entries",
	{"runtime/cell", "measure/ton"}:        "an address lies in a cell as 267 bits",
	{"attest/pki", "attest/check"}:         "dates are judged as checks of an appraisal",
	{"attest/evidence", "measure/pubkey"}:  "a statement names keys",
	{"attest/attesttest", "attest"}:        "the software platform writes the evidence that attest judges",
	{"measure/eventlog", "measure/config"}: "the sequence of the runtime log follows from a config",

	{"runtime/receipt", "runtime/claim"}: "a proof is a receipt and the charge that goes with it",
}

// sole names the one folder that may import a module, so that its parsers stay out of every other process.
var sole = map[string]string{
	"github.com/containerd/containerd":          "runtime/enginehost",
	"github.com/xssnick/tonutils-go/liteclient": "runtime/chain/fetch",
}

func TestStoreys(t *testing.T) {
	for file, src := range goFiles(t) {
		for _, refusal := range judge(t, file, src) {
			t.Error(refusal)
		}
	}
}

// TestStoreysCanRefuse shows that each rule of judge refuses something.
func TestStoreysCanRefuse(t *testing.T) {
	for _, tt := range []struct{ name, file, imports string }{
		{"upward", "measure/config/x.go", "chrysalis/attest"},
		{"sideways", "attest/tdx/x.go", "chrysalis/measure/eventlog"},
		{"init to runtime", "init/x.go", "chrysalis/runtime/internal/keeper"},
		{"engine-host to the keeper's rooms", "runtime/enginehost/x.go", "chrysalis/runtime/internal/keeper"},
		{"containerd in the program with the keys", "runtime/internal/gateway/x.go", "github.com/containerd/containerd/v2/client"},
		{"attest to collateral", "attest/x.go", "chrysalis/attest/collateral"},
		{"client in the service", "runtime/internal/gateway/x.go", "chrysalis/runtime/client"},
		{"containerd elsewhere", "init/x.go", "github.com/containerd/containerd/v2/client"},
		{"unknown folder", "stray/x.go", "fmt"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := judge(t, tt.file, []byte("package x\nimport _ \""+tt.imports+"\"\n")); len(got) == 0 {
				t.Errorf("%s importing %s: got no refusal, want one", tt.file, tt.imports)
			}
		})
	}
	if got := judge(t, "attest/x.go", []byte("package x\nimport _ \"chrysalis/measure/config\"\n")); len(got) != 0 {
		t.Errorf("a downward import: got %q, want no refusal", got)
	}
}

// judge returns one line for each import of the file that the storeys refuse.
func judge(t *testing.T, file string, src []byte) []string {
	t.Helper()
	dir := path.Dir(file)
	from, ok := storeyOf(dir)
	if !ok {
		return []string{file + ": its folder has no storey"}
	}
	inTest := strings.HasSuffix(file, "_test.go")
	var refused []string
	for _, imported := range importsOf(t, file, src) {
		for prefix, owner := range sole {
			if strings.HasPrefix(imported, prefix) && !within(dir, owner) && !inTest {
				refused = append(refused, file+": imports "+imported+", which only "+owner+" may")
			}
		}
		to, isOurs := strings.CutPrefix(imported, module+"/")
		if !isOurs {
			continue
		}
		storey, ok := storeyOf(to)
		switch {
		case !ok:
			refused = append(refused, file+": imports "+imported+", which has no storey")
		case storey < from, unit(dir) == unit(to), sideways[[2]string{unit(dir), unit(to)}] != "":
		case inTest && within(to, "attest/attesttest"):
		default:
			refused = append(refused, file+" (storey "+strconv.Itoa(from)+"): imports "+imported+" (storey "+strconv.Itoa(storey)+")")
		}
	}
	return refused
}

func within(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// unit returns the entry of storeys that decides for dir: packages of one unit may import each other.
func unit(dir string) string {
	best := ""
	for folder := range storeys {
		if within(dir, folder) && len(folder) > len(best) {
			best = folder
		}
	}
	return best
}

func storeyOf(dir string) (int, bool) {
	u := unit(dir)
	return storeys[u], u != ""
}
