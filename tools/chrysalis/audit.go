package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/progress"
	"chrysalis/tools/internal/release"
)

// Files of an audit's folder.
const (
	auditReport    = "report.json"
	auditPage      = "report.html"
	auditEvidence  = "evidence.bin"
	auditStatement = "rebuild.json"
)

// uncovered is what no audit covers.
var uncovered = []string{
	"Whether the source code is good. A rebuild shows that the release is what this source tree makes, and nothing about what that does.",
	"Compilers, Debian's packages and Go modules: they are taken by their hashes, and trusted to be what they say.",
	"Vulnerabilities that nobody has filed, and whether one that is filed can be reached in a guest.",
	"Where the part tracker was not checked: advisories for which today's archives have no newer package.",
	"The model's and the engine's own faults, and those of the tools that built the release, but for Go's.",
	"Engine and model volumes: a guest's policy names them by their root hashes, and nobody looked into them here.",
	"Makers of hardware: the roots that the auditor named, or Intel's and AMD's, are trusted; so is the machine on which this program ran.",
	"Other times: a guest was what it was when it was asked.",
}

// auditing is an audit under way.
type auditing struct {
	cmd      *cobra.Command
	folder   string // of the release
	out      string
	report   audit.Report
	progress *progress.Reporter

	data      []byte // of the manifest
	manifest  *measure.Manifest
	contents  *release.Contents
	evidence  []byte          // that a guest showed
	rebuiltBy bool            // this run rebuilt the release, and it is the same
	waived    map[string]bool // vulnerabilities that were found and waived

	flags auditFlags
}

// auditFlags say what is checked beyond the release's folder.
type auditFlags struct {
	without, waive []string
	rebuilt        string
	shapes         []string
	tree           string
	signature      signatureFlags
	list           listQuestion
	statements     []string
	guest          string
	remote         remoteFlags
	statement      rebuildStatement
	known          knownFlags
	asJSON         bool
}

// auditParts are the parts in the order in which they are made: what costs a second before what costs minutes.
var auditParts = []struct {
	name, title, how string
	// asked says what must be given to have the part checked; "" where it is always.
	asked func(auditFlags) string
	do    func(context.Context, *auditing, *audit.Part) error
}{
	{"files", "Files of the release", "manifest.json was read in its one encoding, and each file of the folder was hashed.", nil, auditFiles},
	{"documents", "Contents, bill of materials, provenance",
		"Root and initrd were unpacked and compared with contents.json file by file, the programs with what their linker wrote; the bill " +
			"of materials was " +
			"made anew from the contents; the provenance was held against the folder.", nil, auditDocuments},
	{"registers", "Measurements", "The hash tree of the root was checked block by block, and the registers were computed from the files.",
		nil, auditRegisters},
	{"signature", "Signature of the release", "The bundle's signature over the provenance was verified, and the folder against the " +
		"provenance.",
		func(f auditFlags) string { return given(f.signature.bundle, "--bundle") }, auditSignature},
	{"list", "Release list", "The list's signatures, dates and entry of this release were judged.",
		func(f auditFlags) string {
			return given(strings.Join(f.list.signers, ""), "--release-list with --signer")
		}, auditList},
	{"statements", "Rebuilds by others", "Signed statements about a rebuild of this manifest were verified.",
		func(f auditFlags) string { return given(strings.Join(f.statements, ""), "--rebuild with --rebuilder") }, auditStatements},
	{"advisories", "Advisories about its packages", "The packages that the release holds were looked up in today's archives, and the " +
		"changelogs of newer ones read " +
		"for advisories since.", nil, auditAdvisories},
	{"tracker", "Packages in Debian's security tracker", "The source packages that the release holds were looked up in a file of the " +
		"tracker's that the auditor downloaded, each in the suite that it is from; a backport in the unstable suite, without its suffix.",
		func(f auditFlags) string { return given(f.known.tracker, "--tracker") }, auditTracker},
	{"modules", "Go modules in a vulnerability database", "Each module, and Go's own, that a program of the release is built of was looked " +
		"up in a database that the auditor downloaded; of what affects it, the functions concerned were looked for in the programs.",
		func(f auditFlags) string { return given(f.known.vulnDB, "--go-vulndb") }, auditModules},
	{"guest", "A live guest", "A guest was asked for evidence that is bound to the connection, and judged by a policy; its registers " +
		"were compared with this release's.",
		func(f auditFlags) string { return given(f.guest, "--guest with --policy") }, auditGuest},
	{"rebuild", "Rebuild", "The release was built again from the source tree in a fresh folder with empty caches, and compared byte for " +
		"byte.", nil, auditRebuild},
}

// given returns the name of a flag that was not given, or "".
func given(value, flag string) string {
	if value != "" {
		return ""
	}
	return flag
}

// leaves are the parts that an auditor can leave out of those that are always checked.
var leaves = []string{"advisories", "rebuild"}

func newAudit() *cobra.Command {
	a := &auditing{}
	f := &a.flags
	cmd := &cobra.Command{
		Use:   "audit RELEASE_DIR [--guest URL --policy FILE]",
		Short: "Check all that can be checked of a release, and write a report to file",
		Long: "Checks a release's files, documents and measurements, looks for advisories about its packages in today's archives, rebuilds " +
			"it from this\n" +
			"source tree (as root, some minutes), and, as far as they are given, its signature, the release list, other people's rebuild " +
			"statements and a live\n" +
			"guest. Writes " + auditReport + " and " + auditPage + ", one page without scripts that can be printed, into a folder: what was " +
			"checked, how, with\n" +
			"which result, and what was not. Exit code 0: no part was rejected. 1: one was. 3: one could not be checked.\n\n" +
			"--without leaves out the rebuild or the advisories; the report says so. --waive names a part whose refusal does not decide, or a " +
			"vulnerability\n" +
			"that you have looked at (CVE-…, GO-…), which the report says too. --tracker and --go-vulndb are files that you downloaded:\n" +
			"data/json of Debian's security tracker, and vulndb.zip of the Go vulnerability database, or its sources' folder data/osv. --rebuilt compares with a release that you rebuilt before. With --sign a release that this run rebuilt with the same " +
			"bytes is\n" +
			"attested, as image audit does.",
		Example: "  sudo chrysalis audit /mnt/published -o audit-2026-12 --as auditor.example\n" +
			"  chrysalis audit build/release --without rebuild --waive advisories --guest https://127.0.0.1:8443 --policy policy.json --roots " +
			"build/guest/tpm-maker.pem\n" +
			"  chrysalis audit /mnt/published --rebuilt build/release --bundle release.sigstore.json --key release.pem.pub --release-list " +
			"list.json --signer a.pub",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			a.cmd, a.folder, a.progress = cmd, args[0], progress.New(cmd.ErrOrStderr())
			return a.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&a.out, "output", "o", "audit", "folder for the report; one that is there already is not written over")
	flags.StringVar(&f.statement.name, "as", "", "name of the auditor, for people")
	flags.StringArrayVar(&f.without, "without", nil, "part to leave out: "+strings.Join(leaves, " or "))
	flags.StringArrayVar(&f.waive, "waive", nil, "part whose refusal does not decide, such as advisories, or a vulnerability by its name")
	f.known.add(flags)
	flags.StringVar(&f.rebuilt, "rebuilt", "", "release folder that you rebuilt before, to compare with instead of a rebuild now")
	flags.StringArrayVar(&f.shapes, "shape", nil, "shape.json of a machine, to compute what the release shows there; may stand several times")
	flags.StringVar(&f.tree, "tools-tree", "build/tools-tree", "tools tree with QEMU, for --shape")
	f.signature.add(cmd)
	flags.StringArrayVar(&f.list.signers, "signer", nil, "public key of a signer of the release list: file, or 64 hexadecimal digits")
	flags.IntVar(&f.list.threshold, "threshold", 1, "how many of the signers must have signed")
	flags.DurationVar(&f.list.maxAge, "max-list-age", 30*24*time.Hour, "oldest list to accept")
	flags.StringArrayVar(&f.statements, "rebuild", nil, "rebuild statement; may stand several times")
	flags.StringArrayVar(&f.list.rebuilders, "rebuilder", nil, "public key of somebody whose rebuilds count")
	flags.IntVar(&f.list.rebuilds, "rebuilds", 0, "how many of the rebuilders must have rebuilt the release, as the list says")
	flags.StringVar(&f.guest, "guest", "", "https URL of a guest that should run this release")
	f.remote.addOptional(cmd)
	flags.StringVar(&f.statement.keyFile, "sign", "", "private key: attest a release that was rebuilt with the same bytes, in "+auditStatement)
	flags.BoolVar(&f.asJSON, "json", false, "print the report as JSON, too")
	_ = cmd.RegisterFlagCompletionFunc("without", cobra.FixedCompletions(leaves, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// check refuses flags that contradict each other, before anything is done.
func (f *auditFlags) check() error {
	for _, name := range f.without {
		if !slices.Contains(leaves, name) {
			return fmt.Errorf("--without %.40q: want %s", name, strings.Join(leaves, " or "))
		}
	}
	for _, name := range f.waive {
		if vulnerability.MatchString(name) {
			if f.known == (knownFlags{maxAge: f.known.maxAge}) {
				return fmt.Errorf("--waive %s: a vulnerability is waived in what --tracker and --go-vulndb say, and neither is given", name)
			}
			continue
		}
		if name == "files" || !slices.ContainsFunc(partNames(), func(n string) bool { return n == name }) {
			return fmt.Errorf("--waive %.40q: want one of %s, or a vulnerability such as CVE-2026-1234", name, strings.Join(partNames()[1:], ", "))
		}
	}
	leavesRebuild := slices.Contains(f.without, "rebuild")
	switch {
	case f.statement.keyFile != "" && (f.statement.name == "" || f.rebuilt != "" || leavesRebuild):
		return errors.New("--sign attests a rebuild of this run by the one whom --as names: it goes with neither --rebuilt nor --without rebuild")
	case f.rebuilt != "" && leavesRebuild:
		return errors.New("--rebuilt and --without rebuild: give one")
	case (f.guest == "") != (f.remote.policy == ""):
		return errors.New("--guest and --policy go together")
	case (len(f.list.signers) > 0) != (f.remote.list != ""):
		return errors.New("--release-list and --signer go together")
	case len(f.statements) > 0 && len(f.list.rebuilders) == 0 || f.list.rebuilds > 0 && len(f.list.rebuilders) == 0:
		return errors.New("--rebuild and --rebuilds go with --rebuilder: nobody's word counts unasked")
	case f.list.rebuilds > 0 && len(f.list.signers) == 0:
		return errors.New("--rebuilds is what the release list must say: it goes with --release-list")
	case len(f.list.rebuilders) > 0 && len(f.statements) == 0 && f.list.rebuilds == 0:
		return errors.New("--rebuilder goes with --rebuild or with --rebuilds")
	}
	if f.signature.bundle != "" {
		if err := f.signature.check(); err != nil {
			return err
		}
	} else if f.signature != (signatureFlags{}) {
		return errors.New("who must have signed is said of a --bundle, and none is given")
	}
	if f.guest != "" {
		if _, _, err := guestAddress(f.guest); err != nil {
			return err
		}
	}
	if f.statement.keyFile == "" {
		return nil
	}
	return f.statement.check()
}

func partNames() (names []string) {
	for _, p := range auditParts {
		names = append(names, p.name)
	}
	return names
}

func (a *auditing) run(ctx context.Context) error {
	if info, err := os.Stat(a.folder); err != nil || !info.IsDir() {
		return unavailable(fmt.Errorf("%s is no folder of a release", a.folder))
	}
	if _, err := os.Lstat(filepath.Join(a.out, auditReport)); err == nil {
		return exitError{exitUsage, fmt.Errorf("%s holds a report: give another folder with -o", a.out)}
	}
	a.report = audit.Report{Auditor: a.flags.statement.name, Begun: time.Now().UTC().Truncate(time.Second), Tool: buildFacts(),
		Uncovered: uncovered,
		Subject:   audit.Subject{Folder: a.folder}, Source: sourceFacts(ctx)}
	a.report.Tool.Arguments = append([]string{}, os.Args[1:]...)
	for i, p := range auditParts {
		part := audit.Part{Name: p.name, Title: p.title, How: p.how, Outcome: audit.Unchecked, Checks: []check.Line{}}
		switch missing := ""; {
		case slices.Contains(a.flags.without, p.name):
			part.Reason = "Left out by --without " + p.name + "."
		case p.asked != nil && p.asked(a.flags) != "":
			missing = p.asked(a.flags)
			part.Reason = "Not asked for: " + missing + " was not given."
		default:
			a.progress.Note("part %d of %d: %s", i+1, len(auditParts), p.name)
			began := time.Now()
			err := p.do(ctx, a, &part)
			if exit := (exitError{}); errors.As(err, &exit) && exit.code == exitUsage || ctx.Err() != nil {
				return err
			}
			part.Judge(classed(err))
			part.Seconds = float64(time.Since(began).Round(100*time.Millisecond)) / float64(time.Second)
			if slices.Contains(a.flags.waive, p.name) {
				part.Waive()
			}
		}
		if part.Outcome == audit.Unchecked {
			part.How = "Not done."
		}
		a.report.Parts = append(a.report.Parts, part)
	}
	for _, name := range a.flags.waive {
		if vulnerability.MatchString(name) && !a.waived[name] {
			a.progress.Note("nothing of the release was found to have %s, which --waive names", name)
		}
	}
	a.report.Close(time.Now())
	return a.finish()
}

// refusal gives a verb's rejection the class that a report asks for.
type refusal struct{ error }

func (refusal) Is(target error) bool { return target == check.ErrRejected }
func (r refusal) Unwrap() error      { return r.error }

func classed(err error) error {
	if exit := (exitError{}); errors.As(err, &exit) && exit.code == exitRejected {
		return refusal{err}
	}
	return err
}

// finish writes the report and says what it says.
func (a *auditing) finish() error {
	encoded, err := a.report.Encode()
	if err != nil {
		return unavailable(err)
	}
	page, err := a.report.Page(encoded)
	if err != nil {
		return unavailable(err)
	}
	if err := os.MkdirAll(a.out, 0o755); err != nil {
		return unavailable(err)
	}
	files := map[string][]byte{auditReport: encoded, auditPage: page}
	if a.evidence != nil {
		files[auditEvidence] = a.evidence
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(a.out, name), data, 0o644); err != nil {
			return unavailable(err)
		}
	}
	if a.rebuiltBy {
		a.flags.statement.out = filepath.Join(a.out, auditStatement)
		if err := a.flags.statement.write(sha256.Sum256(a.data), a.manifest.Lock); err != nil {
			return err
		}
	}
	out := a.cmd.OutOrStdout()
	if a.flags.asJSON {
		if _, err := out.Write(encoded); err != nil {
			return unavailable(err)
		}
	} else {
		printAuditReport(out, a.report, filepath.Join(a.out, auditPage))
	}
	switch a.report.Verdict {
	case check.WordAccepted:
		return nil
	case check.WordRejected:
		return rejected(errors.New(a.report.Summary))
	}
	return unavailable(errors.New(a.report.Summary))
}

// maxReason bounds the line of a part on a terminal, where the report has all of it.
const maxReason = 160

func printAuditReport(w io.Writer, r audit.Report, page string) {
	for _, p := range r.Parts {
		line := fmt.Sprintf("%-12s%s", p.Name, p.Outcome)
		if p.Reason != "" {
			line += ": " + strings.Join(strings.Fields(p.Reason), " ")
			if runes := []rune(line); len(runes) > maxReason {
				line = string(runes[:maxReason-1]) + "…"
			}
		}
		say(w, "%s\n", printable(line))
	}
	say(w, "%s\nreport: %s\n", printable(r.Summary), page)
}

// buildFacts says which program this is.
func buildFacts() audit.Tool {
	t := audit.Tool{Version: version, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH}
	if own, err := os.Executable(); err == nil {
		t.SHA256, _, _ = release.HashFile(own) // zeros where it can't be read
	}
	return t
}

// sourceFacts says which source tree holds the working directory, as far as git tells.
func sourceFacts(ctx context.Context) (s audit.Source) {
	folder, err := sourceTree()
	if err != nil {
		return s
	}
	s.Folder = folder
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", folder}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	commit, err := git("rev-parse", "HEAD")
	if err != nil {
		return s
	}
	changes, err := git("status", "--porcelain")
	s.Commit, s.Changed = commit, err != nil || changes != ""
	return s
}
