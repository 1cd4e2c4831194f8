package chrysalis

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// ban says what a folder's packages, those below it included, must not reach: by an import of their own or by one of what they
// import. An import leads to a package of ours or out of the house, and there it is judged by its path alone.
type ban struct {
	from   string   // folder
	but    []string // folders below from that the ban is not about
	never  []string // folders of ours, or import paths of others, with what lies below them
	exact  []string // packages of ours alone, without what lies below them
	only   []string // where set, the import paths of others that may be reached; the standard library always may
	reason string
}

// verifiers judge a guest. Who is judged needs none of them, and each of their parsers in a process that is attacked is one more
// thing to attack.
var verifiers = []string{"attest/tdx", "attest/sevsnp", "attest/nvidia", "attest/release", "attest/collateral"}

// verdicts are those packages of a verifier below which others lie that a guest may need.
var verdicts = []string{"attest", "attest/vtpm", "attest/ratls"}

// chain is what speaks to TON's network.
var chain = []string{
	"github.com/xssnick/tonutils-go/liteclient", "github.com/xssnick/tonutils-go/adnl", "github.com/xssnick/tonutils-go/ton",
	"runtime/chain/fetch",
}

// testRooms forge evidence, drop checks, or play a kernel or a certificate authority.
var testRooms = []string{"runtime/chain/chaintest", "runtime/chain/fetch/fetchtest", "attest/attesttest", "attest/check/checktest", "runtime/client/clienttest", "tools/internal/release/releasetest",
	"init/internal/platform/tsm/tsmtest"}

var bans = []ban{
	// Its GPUs process 1 judges itself, by the one verifier that clients have: it alone knows what the log says of them and may let them work,
	// and a process beside it would have to be believed. What that verifier parses is bounded and fuzzed, and a panic in it ends the guest.
	{from: "init", never: []string{"attest/tdx", "attest/sevsnp", "attest/collateral", "attest/vtpm/enrol"}, exact: verdicts,
		reason: "process 1 is judged and judges nobody but its GPUs; of releases it reads a signed list, while it has no secret"},
	{from: "init", never: []string{"runtime/internal", "runtime/enginehost", "runtime/claim", "runtime/receipt", "runtime/client"},
		reason: "process 1 starts the services and carries none of their code"},
	{from: "runtime/envelope/guest", never: slices.Concat(verifiers, chain), exact: verdicts, reason: "a guest opens envelopes and judges nobody"},
	{from: "runtime", but: []string{"runtime/enginehost", "runtime/client", "runtime/envelope", "runtime/custody", "runtime/chain/fetch", "runtime/fetch"}, never: slices.Concat(verifiers, chain,
		[]string{"github.com/containerd", "google.golang.org/grpc", "google.golang.org/protobuf", "runtime/enginehost", "runtime/client"}),
		exact:  verdicts,
		reason: "the programs with the keys carry neither an engine's host nor a verifier nor a network of others"},
	{from: "runtime/custody", never: slices.Concat(chain, []string{"github.com/containerd", "google.golang.org/grpc", "google.golang.org/protobuf",
		"attest/collateral", "attest/vtpm/enrol", "runtime/enginehost", "runtime/client", "runtime/claim", "runtime/receipt", "runtime/internal/keeper",
		"runtime/internal/gateway", "runtime/internal/journal", "runtime/internal/custodian"}),
		reason: "who judges a guest for another has neither the keys that sign, nor a journal, nor a network beyond its sockets"},
	{from: "runtime/fetch", never: slices.Concat(verifiers, []string{"github.com/containerd", "google.golang.org/grpc", "google.golang.org/protobuf",
		"runtime/enginehost", "runtime/client", "runtime/claim", "runtime/receipt", "runtime/settle", "runtime/internal/keeper", "runtime/internal/gateway",
		"runtime/internal/journal", "runtime/internal/custodian"}), exact: verdicts,
		reason: "who asks liteservers has neither the keys that sign, nor a journal, nor a verifier"},
	{from: "runtime/enginehost", never: slices.Concat(verifiers, []string{"runtime/claim", "runtime/receipt", "runtime/internal"}),
		exact: verdicts, reason: "the engine's host holds no key and judges nobody"},
	{from: "attest", but: []string{"attest/vtpm/enrol", "attest/vtpm/template", "attest/attesttest"}, only: []string{"github.com/go-json-experiment/json"},
		reason: "who imports the verifier links JSON and nothing else that is not Go's own"},
	{from: "runtime/client", but: []string{"runtime/client/clienttest"},
		never:  []string{"runtime/internal", "runtime/secret", "runtime/role", "runtime/enginehost"},
		only:   []string{"github.com/go-json-experiment/json"},
		reason: "who asks a guest links a verifier and the formats of its proofs, and nothing of the guest"},
	{from: "measure", never: []string{"attest", "runtime", "init", "tools"}, reason: "what is expected does not depend on what is shown"},
	{from: "init/status", only: []string{}, reason: "the words to the host are read by every tool"},
	{from: ".", but: slices.Concat(testRooms, []string{"tools/double", "tools/localchain", "tools/internal/localchain"}), never: testRooms,
		reason: "what forges evidence, drops checks or plays a certificate authority or a chain is for tests, the double of hardware and the local chain alone"},
	{from: "tools/chrysalis", never: []string{"tools/internal/localchain"}, reason: "the command line has no chain of its own and no wallet"},
}

// graph is the imports of each package of ours outside its tests: packages of ours by their folder, others by their path. The
// standard library is not in it.
type graph map[string][]string

func houseGraph(t *testing.T) graph {
	t.Helper()
	g := graph{}
	for file, src := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		dir := path.Dir(file)
		for _, imported := range importsOf(t, file, src) {
			imported, ours := strings.CutPrefix(imported, module+"/")
			if !ours && !strings.Contains(strings.Split(imported, "/")[0], ".") {
				continue
			}
			if !slices.Contains(g[dir], imported) {
				g[dir] = append(g[dir], imported)
			}
		}
		if g[dir] == nil {
			g[dir] = []string{}
		}
	}
	return g
}

func (b ban) covers(folder string) bool {
	return (b.from == "." || within(folder, b.from)) && !slices.ContainsFunc(b.but, func(f string) bool { return within(folder, f) })
}

// refuses says why the ban refuses that a package or path is reached, or "".
func (b ban) refuses(g graph, reached string) string {
	if slices.Contains(b.exact, reached) || slices.ContainsFunc(b.never, func(f string) bool { return within(reached, f) }) {
		return b.reason
	}
	_, ours := g[reached]
	foreign := !ours && strings.Contains(strings.Split(reached, "/")[0], ".")
	if b.only != nil && foreign && !slices.ContainsFunc(b.only, func(f string) bool { return within(reached, f) }) {
		return b.reason
	}
	return ""
}

// reach returns a line for each package that the ban covers and that reaches what it bans, with the way to it.
func (b ban) reach(g graph) (lines []string) {
	for _, from := range slices.Sorted(maps.Keys(g)) {
		if !b.covers(from) {
			continue
		}
		way := map[string]string{from: ""} // by whom each was reached first
		for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
			for _, next := range g[queue[0]] {
				if _, seen := way[next]; seen {
					continue
				}
				way[next] = queue[0]
				if reason := b.refuses(g, next); reason != "" {
					line := next
					for at := queue[0]; at != ""; at = way[at] {
						line = at + " → " + line
					}
					lines = append(lines, line+": "+reason)
					continue
				}
				queue = append(queue, next)
			}
		}
	}
	return lines
}

func TestReach(t *testing.T) {
	g := houseGraph(t)
	for _, b := range bans {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(g)), b.covers) {
			t.Errorf("the ban on %s covers no package", b.from)
		}
		for _, line := range b.reach(g) {
			t.Error(line)
		}
	}
}

// TestReachCanRefuse breaks each ban once for everything that it names, by an import two packages away from those that it covers.
func TestReachCanRefuse(t *testing.T) {
	house := houseGraph(t)
	for i, b := range bans {
		banned := slices.Concat(b.never, b.exact)
		if b.only != nil {
			banned = append(banned, "example.org/foreign")
		}
		if len(banned) == 0 {
			t.Errorf("ban %d on %s names nothing", i, b.from)
		}
		for _, target := range banned {
			g := maps.Clone(house)
			first := b.from
			if first == "." {
				first = "tools"
			}
			// A new package of the folder, and a new room that it leans on: what a stranger's change would look like.
			g[first+"/stray"] = []string{"measure/stray"}
			g["measure/stray"] = []string{target}
			if lines := b.reach(g); !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "measure/stray → "+target) }) {
				t.Errorf("ban %d: %s reaches %s over another package: got %q, want a refusal", i, first, target, lines)
			}
		}
	}
}
