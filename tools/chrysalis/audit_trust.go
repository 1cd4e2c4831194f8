package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	attestrelease "chrysalis/attest/release"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/lock"
)

func auditSignature(_ context.Context, a *auditing, p *audit.Part) error {
	signer, err := a.flags.signature.verify(a.folder)
	if err != nil {
		return err
	}
	who := "key " + signer.Key
	if signer.Key == "" {
		who = signer.Subject + ", says " + signer.Issuer
		p.Fact("signed at", signer.Time.Format(time.RFC3339))
	}
	p.Check("signer", who, who)
	return nil
}

func auditList(_ context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	data, err := readInput(a.flags.remote.list)
	if err != nil {
		return err
	}
	signers, err := readPublicKeys(a.flags.list.signers)
	if err != nil {
		return err
	}
	rebuilders, err := readPublicKeys(a.flags.list.rebuilders)
	if err != nil {
		return err
	}
	list, err := attestrelease.ParseList(data, signers, a.flags.list.threshold)
	if err != nil && !errors.Is(err, attest.ErrRejected) {
		return exitError{exitUsage, err}
	}
	if !p.Holds("signatures", fmt.Sprintf("at least %d of %d signers", a.flags.list.threshold, len(signers)), err) {
		return nil
	}
	p.Fact("issued", list.Issued().Format(time.RFC3339))
	for _, key := range list.Signers() {
		p.Fact("signed by", key.String())
	}
	p.Holds("dates", "issued, not expired, not too old", list.Fresh(time.Now(), a.flags.list.maxAge))
	manifest := a.report.Subject.Manifest
	for _, r := range list.Revoked() {
		if r.Manifest == manifest {
			p.Check("entry", fmt.Sprintf("revoked as %s: %s", r.Name, r.Reason), "listed")
			return nil
		}
	}
	i := slices.IndexFunc(list.Releases(), func(r attestrelease.Listed) bool { return r.Manifest == manifest })
	if i < 0 {
		p.Check("entry", fmt.Sprintf("not listed: none of %d releases has manifest %s", len(list.Releases()), manifest), "listed")
		return nil
	}
	listed := list.Releases()[i]
	p.Check("entry", "listed", "listed")
	p.Fact("name in the list", listed.Values.Name)
	p.Check("security version", fmt.Sprint(listed.Values.SecurityVersion), fmt.Sprint(a.manifest.SecurityVersion))
	for n, pcrs := range listed.Values.VTPM {
		for _, index := range slices.Sorted(maps.Keys(a.manifest.PCRs)) {
			p.Check(fmt.Sprintf("vtpm entry %d: %s", n, register.PCR(index)), pcrs[index].String(), a.manifest.PCRs[index].String())
		}
	}
	if n := len(listed.Values.TDX) + len(listed.Values.SEVSNP); n > 0 {
		p.Note("%d values of the list are those of TDX and SEV-SNP machines, whose shapes it does not name: they were not computed.", n)
	}
	if a.flags.list.rebuilds > 0 {
		p.Holds("rebuilds", fmt.Sprintf("statements of at least %d of %d rebuilders", a.flags.list.rebuilds, len(rebuilders)),
			list.Rebuilt(listed.Values.Name, rebuilders, a.flags.list.rebuilds))
	}
	return nil
}

func auditStatements(_ context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	rebuilders, err := readPublicKeys(a.flags.list.rebuilders)
	if err != nil {
		return err
	}
	for _, file := range a.flags.statements {
		data, err := readInput(file)
		if err != nil {
			return err
		}
		r, key, err := attestrelease.VerifyRebuild(data, rebuilders)
		if !p.Holds(file, "a statement signed by one of the rebuilders", err) {
			continue
		}
		p.Check(file+": manifest", r.Manifest.String(), a.report.Subject.Manifest.String())
		p.Fact("rebuilt by", fmt.Sprintf("%s, key %s, says %s", r.Rebuilder, key, r.Time.Format(time.RFC3339)))
	}
	return nil
}

// newsLocks are the locks whose packages lie in a release or are linked into its programs.
var newsLocks = []string{"image", "firmware", "tools"}

func auditAdvisories(ctx context.Context, a *auditing, p *audit.Part) error {
	if a.contents == nil {
		return errors.New("there are no contents to look up")
	}
	b, err := newBuilder(a.cmd)
	if err != nil {
		return err
	}
	held := map[string]map[string]string{} // lock, then package, to version
	for _, name := range newsLocks {
		held[name] = map[string]string{}
		l, err := b.Locked(name)
		if err != nil {
			return err
		}
		for _, pkg := range a.contents.Packages {
			if pkg.Lock != name {
				continue
			}
			if locked, err := l.Package(pkg.Name); err != nil || register.Digest(locked.SHA256) != pkg.SHA256 {
				return fmt.Errorf("%s %s is not in the source tree's %s.lock: that tree is not the release's", pkg.Name, pkg.Version, name)
			}
			held[name][pkg.Name] = pkg.Version
		}
	}
	diffs, err := b.CheckLocks(ctx, newsLocks...)
	if err != nil {
		return err
	}
	return judgeNews(p, held, diffs)
}

// judgeNews adds a check for each package that the release holds: advisories since its version refuse it. A changelog that can't be
// read is no acceptance.
func judgeNews(p *audit.Part, held map[string]map[string]string, diffs []lock.Diff) error {
	var unread []string
	for _, d := range diffs {
		changed := map[string]lock.PackageChange{}
		for _, c := range d.Packages {
			changed[c.Name] = c
		}
		for _, name := range slices.Sorted(maps.Keys(held[d.Lock])) {
			const want = "no advisory since"
			got := want
			if c, ok := changed[name]; ok {
				if !strings.HasPrefix(c.News, lock.NewsRead) {
					unread = append(unread, name+" ("+c.News+")")
					continue
				}
				if n := len(c.Advisories); n > 0 {
					got = fmt.Sprintf("%d since: %s", n, strings.Join(c.Advisories, " "))
				}
				p.Fact("newer: "+name, fmt.Sprintf("%s -> %s (%s)", c.Old, cmp.Or(c.New, "under another name"), c.News))
			}
			p.Check(name+" "+held[d.Lock][name], got, want)
		}
		for _, archive := range d.Archives {
			p.Fact("index of "+archive.Archive+" "+archive.Suite, archive.New)
		}
	}
	if len(unread) > 0 {
		return fmt.Errorf("it can't be told what changed in %s", strings.Join(unread, ", "))
	}
	return nil
}

func auditGuest(ctx context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	_, address, err := guestAddress(a.flags.guest)
	if err != nil {
		return err
	}
	remote := a.flags.remote
	if remote.list != "" && !namesSigners(remote.policy) {
		remote.list = "" // it was judged by the auditor's own signers alone
	}
	config, err := remote.open()
	if err != nil {
		return err
	}
	var seen *evidence.Evidence
	config.Seen = func(e *evidence.Evidence) { seen = e }
	p.Fact("URL", a.flags.guest)
	conn, refused := ratls.Dial(ctx, "tcp", address, config)
	if seen != nil {
		if a.evidence, err = seen.Encode(); err != nil {
			return err
		}
		p.Fact(auditEvidence, fmt.Sprintf("SHA-256 %x", sha256.Sum256(a.evidence)))
	}
	if refused != nil {
		p.Checks = append(p.Checks, attest.ReportOf(nil, refused).Checks...)
		return refused
	}
	defer conn.Close()
	result := conn.Result()
	p.Checks = append(p.Checks, result.Checks()...)
	for _, weakness := range result.Weaknesses() {
		p.Note("%s", weakness)
	}
	p.Fact("platform", result.Platform().String())
	p.Fact("machine", fmt.Sprintf("%x", result.Machine()))
	p.Fact("release in the policy", result.Release())
	p.Fact("receipt key", result.ReceiptKey().String())
	p.Fact("claim key", result.ClaimKey().String())
	p.Fact("keys end", result.NotAfter().UTC().Format(time.RFC3339))
	return a.sameRelease(ctx, p, seen)
}

// sameRelease checks that the guest, which its policy accepts, shows the registers of this release: a policy may accept others.
func (a *auditing) sameRelease(ctx context.Context, p *audit.Part, seen *evidence.Evidence) error {
	registers, err := attest.Claimed(seen)
	if err != nil {
		return err
	}
	if seen.Platform == evidence.VTPM {
		for _, index := range slices.Sorted(maps.Keys(a.manifest.PCRs)) {
			p.Check("this release: "+register.PCR(index), fmt.Sprintf("%x", registers[register.PCR(index)]), a.manifest.PCRs[index].String())
		}
		return nil
	}
	// On hardware the registers follow from the shape of the machine as well.
	var nearest []check.Line
	for _, file := range a.flags.shapes {
		entries, err := a.entriesOf(ctx, file)
		if err != nil {
			return err
		}
		for _, e := range entries {
			var lines audit.Part
			differ := 0
			for _, name := range slices.Sorted(maps.Keys(e.Values)) {
				got, want := fmt.Sprintf("%x", registers[name]), fmt.Sprintf("%x", e.Values[name])
				lines.Check("this release: "+name, got, want)
				if got != want {
					differ++
				}
			}
			if differ == 0 {
				p.Checks = append(p.Checks, lines.Checks...)
				return nil
			}
			nearest = lines.Checks
		}
	}
	if nearest == nil {
		return fmt.Errorf("whether a %s guest runs this release follows from its machine too: give its --shape", seen.Platform)
	}
	p.Checks = append(p.Checks, nearest...)
	return nil
}

// namesSigners reports whether a policy leaves it to a signed list which releases may run.
func namesSigners(file string) bool {
	data, err := readInput(file)
	if err != nil {
		return false
	}
	var rules attest.Rules
	return json.Unmarshal(data, &rules) == nil && len(rules.ReleaseList.Signers) > 0
}
