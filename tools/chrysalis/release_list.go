package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
)

func newReleaseList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "The signed, expiring list of releases that may run", Args: cobra.NoArgs}
	cmd.AddCommand(newReleaseListMake(), newReleaseListSign(), newReleaseListShow(), newReleaseListVerify())
	return cmd
}

// listChanges is what release list make does to an older list.
type listChanges struct {
	from         string
	manifests    []string // [NAME=]FILE
	drop, revoke []string // NAME, NAME=REASON
	rebuilds     []string
	lasts        time.Duration
	now          time.Time
}

func newReleaseListMake() *cobra.Command {
	var c listChanges
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "make [--from OLD] --manifest [NAME=]FILE … -o FILE", Short: "Make an unsigned release list", Args: cobra.NoArgs,
		Long: "Makes a list out of manifests, an older list, or both. The values by which a guest is known are those that the policy verb takes\n" +
			"from a manifest. A revoked release leaves the listed ones and is named with its reason from then on. Rebuild statements (image audit\n" +
			"--sign) go to the release whose manifest they name. Nobody is asked whose signatures the older list has: look at it first.",
		Example: "  chrysalis release list make --manifest build/release/manifest.json --rebuild rebuild.json -o list.json\n" +
			"  chrysalis release list make --from list.json --manifest '2026.12=manifest.json' --revoke '2026.11=the gateway logged prompts' -o next.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.now = time.Now()
			list, err := c.list()
			if err != nil {
				return err
			}
			return writeDocument(cmd.OutOrStdout(), out, list, asJSON)
		},
	}
	cmd.Flags().StringVar(&c.from, "from", "", "older list to go on from")
	cmd.Flags().StringArrayVar(&c.manifests, "manifest", nil,
		"manifest of a release to list; NAME= gives it another name than the policy verb's")
	cmd.Flags().StringArrayVar(&c.revoke, "revoke", nil, "listed release that must not run any more, with the reason: NAME=REASON")
	cmd.Flags().StringArrayVar(&c.drop, "drop", nil, "listed release to leave out without a word")
	cmd.Flags().StringArrayVar(&c.rebuilds, "rebuild", nil, "rebuild statement to take in")
	cmd.Flags().DurationVar(&c.lasts, "lasts", 30*24*time.Hour, "time until the list expires")
	documentFlags(cmd, &out, &asJSON)
	return cmd
}

func (c listChanges) list() ([]byte, error) {
	d := release.NewDocument(c.now, c.lasts)
	if c.from != "" {
		data, err := readInput(c.from)
		if err != nil {
			return nil, unavailable(err)
		}
		old, _, err := release.DecodeList(data)
		if err != nil {
			return nil, rejected(fmt.Errorf("%s: %w", c.from, err))
		}
		d.Releases, d.Revoked = old.Releases, old.Revoked
	}
	take := func(name string) (release.Listed, error) {
		i := slices.IndexFunc(d.Releases, func(r release.Listed) bool { return r.Values.Name == name })
		if i < 0 {
			return release.Listed{}, exitError{exitUsage, fmt.Errorf("release %q is not listed", name)}
		}
		r := d.Releases[i]
		d.Releases = slices.Delete(d.Releases, i, i+1)
		return r, nil
	}
	for _, name := range c.drop {
		if _, err := take(name); err != nil {
			return nil, err
		}
	}
	for _, text := range c.revoke {
		name, reason, ok := strings.Cut(text, "=")
		if !ok || reason == "" {
			return nil, fmt.Errorf("--revoke %q: want NAME=REASON", text)
		}
		r, err := take(name)
		if err != nil {
			return nil, err
		}
		d.Revoked = append(d.Revoked, release.Revoked{Name: name, Manifest: r.Manifest, Reason: reason})
	}
	for _, text := range c.manifests {
		r, err := listedRelease(text)
		if err != nil {
			return nil, err
		}
		d.Releases = append(d.Releases, r)
	}
	slices.SortFunc(d.Releases, func(a, b release.Listed) int { return strings.Compare(a.Values.Name, b.Values.Name) })
	slices.SortFunc(d.Revoked, func(a, b release.Revoked) int { return strings.Compare(a.Name, b.Name) })
	for _, file := range c.rebuilds {
		data, err := readInput(file)
		if err != nil {
			return nil, unavailable(err)
		}
		if err := d.AddRebuild(data); err != nil {
			return nil, rejected(fmt.Errorf("%s: %w", file, err))
		}
	}
	list, err := release.EncodeList(d)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return list, nil
}

// listedRelease reads a manifest given as [NAME=]FILE.
func listedRelease(text string) (release.Listed, error) {
	name, file, named := strings.Cut(text, "=")
	if !named {
		name, file = "", text
	}
	data, err := readInput(file)
	if err != nil {
		return release.Listed{}, unavailable(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		return release.Listed{}, rejected(fmt.Errorf("reading %s: %w", file, err))
	}
	values := strictRules(m, config.Measured{}).Releases[0]
	if named {
		values.Name = name
	}
	return release.Listed{Manifest: sha256.Sum256(data), Values: values, Rebuilds: []release.Envelope{}}, nil
}

func newReleaseListSign() *cobra.Command {
	return newSign("LIST", "release list", "release list show", "chrysalis release list sign list.json", release.SignList)
}

// newSign is the verb that adds a signature to a document of a kind.
func newSign(argument, kind, show, example string, sign func([]byte, ed25519.PrivateKey) ([]byte, error)) *cobra.Command {
	var key, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "sign " + argument + " --key FILE [-o FILE]", Short: "Add a signature to a " + kind, Args: cobra.ExactArgs(1),
		Long: "Adds your signature to those that are there. Look at the " + kind + " first: " + show + ". Without -o the " + kind +
			" itself is written anew.",
		Example: "  " + example + " --key release.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			private, err := readPrivateKey(key)
			if err != nil {
				return err
			}
			data, err := readInput(args[0])
			if err != nil {
				return unavailable(err)
			}
			signed, err := sign(data, private)
			if err != nil {
				return rejected(err)
			}
			if out == "" {
				out = args[0]
			}
			return writeDocument(cmd.OutOrStdout(), out, signed, asJSON)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key (make one with: chrysalis release key)")
	documentFlags(cmd, &out, &asJSON)
	cmd.Flags().Lookup("output").Usage = "file to write (default: the " + kind + " itself)"
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func newReleaseListShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show LIST", Short: "Say what a release list says, without asking who signed it", Args: cobra.ExactArgs(1),
		Example: "  chrysalis release list show list.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readInput(args[0])
			if err != nil {
				return unavailable(err)
			}
			d, signatures, err := release.DecodeList(data)
			if err != nil {
				return rejected(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					List       release.Document `json:"list"`
					Signatures []string         `json:"signed_by"`
				}{d, keyIDs(signatures)})
			}
			printReleaseList(cmd.OutOrStdout(), d)
			for _, id := range keyIDs(signatures) {
				fmt.Fprintf(cmd.OutOrStdout(), "signature by %s, not checked\n", id)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyIDs(signatures []release.Signature) []string {
	ids := []string{}
	for _, s := range signatures {
		ids = append(ids, s.KeyID)
	}
	return ids
}

// printReleaseList shows names and reasons that somebody else wrote.
func printReleaseList(w io.Writer, d release.Document) {
	fmt.Fprintf(w, "issued %s, expires %s\n", d.Issued.Format(time.RFC3339), d.Expires.Format(time.RFC3339))
	for _, r := range d.Releases {
		fmt.Fprintf(w, "listed   %s, security version %d, manifest %s, %d rebuilds\n", printable(r.Values.Name), r.Values.SecurityVersion,
			r.Manifest, len(r.Rebuilds))
		for _, e := range r.Rebuilds {
			fmt.Fprintf(w, "         rebuild by %s, not checked\n", e.Signatures[0].KeyID)
		}
	}
	for _, r := range d.Revoked {
		fmt.Fprintf(w, "revoked  %s, manifest %s: %s\n", printable(r.Name), r.Manifest, printable(r.Reason))
	}
}

// listQuestion is what release list verify asks of a list.
type listQuestion struct {
	signers, rebuilders []string
	threshold, rebuilds int
	maxAge              time.Duration
	release             string
	at                  string
}

func newReleaseListVerify() *cobra.Command {
	var q listQuestion
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify LIST --signer KEY … [--threshold K] [--release NAME]", Short: "Judge a release list, and a release by it",
		Args: cobra.ExactArgs(1),
		Long: "Checks that K of the signers stand for the list, that it is issued, not expired and not too old, and with --release that the release\n" +
			"is listed and not revoked, and that as many of the rebuilders as --rebuilds says rebuilt it. Exit code 0: accepted, 1: rejected.",
		Example: "  chrysalis release list verify list.json --signer a.pub --signer b.pub --signer c.pub --threshold 2\n" +
			"  chrysalis release list verify list.json --signer a.pub --release 2026.12 --rebuilder r1.pub --rebuilder r2.pub --rebuilds 2 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readInput(args[0])
			if err != nil {
				return unavailable(err)
			}
			list, err := q.judge(data)
			if err != nil {
				return err
			}
			if asJSON {
				signers := []string{}
				for _, key := range list.Signers() {
					signers = append(signers, key.String())
				}
				return printJSON(cmd.OutOrStdout(), struct {
					check.Report
					Issued  time.Time `json:"issued"`
					Signers []string  `json:"signers"`
					Release string    `json:"release,omitempty"`
				}{check.Accept(nil, nil), list.Issued(), signers, q.release})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "accepted: %d of %d signers, issued %s\n", len(list.Signers()), len(q.signers),
				list.Issued().Format(time.RFC3339))
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&q.signers, "signer", nil, "public key of a signer: file, or 64 hexadecimal digits")
	cmd.Flags().IntVar(&q.threshold, "threshold", 1, "how many of the signers must have signed")
	cmd.Flags().DurationVar(&q.maxAge, "max-age", 30*24*time.Hour, "oldest list to accept")
	cmd.Flags().StringVar(&q.release, "release", "", "release to judge by the list")
	cmd.Flags().StringArrayVar(&q.rebuilders, "rebuilder", nil, "public key of somebody whose rebuilds count")
	cmd.Flags().IntVar(&q.rebuilds, "rebuilds", 0, "how many of the rebuilders must have rebuilt the release")
	cmd.Flags().StringVar(&q.at, "at", "", "time to judge at, such as 2026-11-20T12:00:00Z (default: now)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("signer")
	return cmd
}

func (q listQuestion) judge(data []byte) (*release.List, error) {
	now := time.Now()
	if q.at != "" {
		var err error
		if now, err = time.Parse(time.RFC3339, q.at); err != nil {
			return nil, fmt.Errorf("--at: %w", err)
		}
	}
	if q.release == "" && (q.rebuilds != 0 || len(q.rebuilders) > 0) || (q.rebuilds == 0) != (len(q.rebuilders) == 0) {
		return nil, errors.New("--rebuilds, --rebuilder and --release go together")
	}
	signers, err := readPublicKeys(q.signers)
	if err != nil {
		return nil, err
	}
	rebuilders, err := readPublicKeys(q.rebuilders)
	if err != nil {
		return nil, err
	}
	list, err := release.ParseList(data, signers, q.threshold)
	if err == nil {
		err = list.Fresh(now, q.maxAge)
	}
	if err == nil && q.release != "" {
		_, err = list.Release(q.release)
	}
	if err == nil && q.rebuilds != 0 {
		err = list.Rebuilt(q.release, rebuilders, q.rebuilds)
	}
	switch {
	case errors.Is(err, attest.ErrRejected):
		return nil, rejected(err)
	case err != nil: // a threshold or an age that makes no sense
		return nil, exitError{exitUsage, err}
	}
	return list, nil
}
