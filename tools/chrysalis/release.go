package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/tools/internal/release"
)

func newRelease() *cobra.Command {
	cmd := &cobra.Command{Use: "release", Short: "Sign and verify releases, and the list of those that may run", Args: cobra.NoArgs}
	cmd.AddCommand(newReleaseKey(), newReleaseSign(), newReleaseVerify(), newReleaseList(), newReleasePackage())
	return cmd
}

func newReleaseKey() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "key FILE", Short: "Make an Ed25519 key for releases, lists and rebuild statements", Args: cobra.ExactArgs(1),
		Long:    "Writes the private key to FILE (PKCS #8, for you alone) and the public key to FILE.pub, and prints the public key. It overwrites nothing.",
		Example: "  chrysalis release key release.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			public, err := release.NewKey(args[0])
			if err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"private": args[0], "public": args[0] + ".pub",
					"key": public.String()})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n", public)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newReleaseSign() *cobra.Command {
	var key, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "sign DIR --key FILE [-o BUNDLE]", Short: "Sign a release folder's provenance with a key", Args: cobra.ExactArgs(1),
		Long: "Checks that the folder is what its provenance says and signs the provenance. The result is a sigstore bundle, the same bytes each\n" +
			"time. A build service with an identity at a sigstore signs provenance.json itself and verifies alike, with --identity and --issuer.",
		Example: "  chrysalis release sign build/release --key release.pem -o release.sigstore.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			private, err := readPrivateKey(key)
			if err != nil {
				return err
			}
			bundle, err := release.Sign(cmd.Context(), args[0], private)
			if err != nil {
				return rejected(err)
			}
			return writeDocument(cmd.OutOrStdout(), out, bundle, asJSON)
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "private key (make one with: chrysalis release key)")
	documentFlags(cmd, &out, &asJSON)
	_ = cmd.MarkFlagRequired("key")
	return cmd
}

func newReleaseVerify() *cobra.Command {
	var f signatureFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR --bundle FILE (--key PUBLIC | --identity WHO --issuer URL [--trusted-root FILE])",
		Short: "Verify who signed a release folder, and that it is what was signed", Args: cobra.ExactArgs(1),
		Long: "Checks a sigstore bundle over the folder's provenance, offline, and every file of the folder against the provenance. Either a key\n" +
			"must have signed, or a certificate of the identity that the issuer vouched for, entered into a log. Without --trusted-root the public\n" +
			"sigstore's root is fetched. Exit code 0: accepted, 1: rejected, 3: a file or the root could not be read.",
		Example: "  chrysalis release verify build/release --bundle release.sigstore.json --key release.pem.pub\n" +
			"  chrysalis release verify DIR --bundle B --identity-pattern 'https://github.com/OWNER/REPO/.*' --issuer https://token.actions.githubusercontent.com --trusted-root root.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			signer, err := f.verify(args[0])
			if err != nil {
				return err
			}
			return printSigner(cmd.OutOrStdout(), args[0], signer, asJSON)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("bundle")
	return cmd
}

// signatureFlags say who must have signed a release.
type signatureFlags struct {
	bundle, key, trusted string
	id                   release.Identity
}

func (f *signatureFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.bundle, "bundle", "", "sigstore bundle over the release's provenance")
	flags.StringVar(&f.key, "key", "", "public key that must have signed: file, or 64 hexadecimal digits")
	flags.StringVar(&f.id.Subject, "identity", "", "address or workflow that must stand in the certificate")
	flags.StringVar(&f.id.SubjectPattern, "identity-pattern", "", "regular expression that must fit the whole of it")
	flags.StringVar(&f.id.Issuer, "issuer", "", "URL of the issuer that vouched for the identity")
	flags.StringVar(&f.trusted, "trusted-root", "", "sigstore trusted root (default: fetched from the public sigstore)")
}

func (f *signatureFlags) check() error {
	if byKey := f.key != ""; byKey == (f.id != release.Identity{}) || byKey && f.trusted != "" {
		return errors.New("want either --key, or --issuer with --identity or --identity-pattern")
	}
	return nil
}

// verify verifies the bundle over a release folder.
func (f *signatureFlags) verify(dir string) (signer release.Signer, err error) {
	bundle, err := readInput(f.bundle)
	if err != nil {
		return signer, unavailable(err)
	}
	if _, err := os.Stat(filepath.Join(dir, release.ManifestName)); err != nil {
		return signer, unavailable(err)
	}
	if f.key != "" {
		public, err := readPublicKey(f.key)
		if err != nil {
			return signer, err
		}
		if signer, err = release.VerifyKey(dir, bundle, public); err != nil {
			return signer, rejected(err)
		}
		return signer, nil
	}
	roots, err := readTrustedRoot(f.trusted)
	if err != nil {
		return signer, unavailable(err)
	}
	if signer, err = release.Verify(dir, bundle, roots, f.id); err != nil {
		return signer, rejected(err)
	}
	return signer, nil
}

func readTrustedRoot(file string) (*root.TrustedRoot, error) {
	if file == "" {
		return release.FetchTrustedRoot()
	}
	data, err := readInput(file)
	if err != nil {
		return nil, err
	}
	return release.ReadTrustedRoot(data)
}

func printSigner(w io.Writer, dir string, s release.Signer, asJSON bool) error {
	if asJSON {
		return printJSON(w, struct {
			check.Report
			Signer release.Signer `json:"signer"`
		}{check.Accept(nil, nil), s})
	}
	who := "key " + s.Key
	if s.Key == "" {
		who = s.Subject + ", says " + s.Issuer + ", at " + s.Time.Format(time.RFC3339)
	}
	_, err := fmt.Fprintf(w, "accepted: %s is the release signed by %s\n", dir, printable(who))
	return err
}

func readPrivateKey(file string) (ed25519.PrivateKey, error) {
	data, err := readInput(file)
	if err != nil {
		return nil, unavailable(err)
	}
	key, err := release.ParseKey(data)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("%s: %w", file, err)}
	}
	return key, nil
}

// readPublicKey takes 64 hexadecimal digits or a file.
func readPublicKey(text string) (key pubkey.Ed25519, err error) {
	if key, err := release.ParsePublicKey([]byte(text)); err == nil {
		return key, nil
	}
	data, err := readInput(text)
	if err != nil {
		return key, unavailable(err)
	}
	key, err = release.ParsePublicKey(data)
	if err != nil {
		return key, exitError{exitUsage, fmt.Errorf("%s: %w", text, err)}
	}
	return key, nil
}

func readPublicKeys(texts []string) (keys []pubkey.Ed25519, err error) {
	for _, text := range texts {
		key, err := readPublicKey(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// documentFlags are those of verbs that make a JSON document.
func documentFlags(cmd *cobra.Command, out *string, asJSON *bool) {
	cmd.Flags().StringVarP(out, "output", "o", "", "file to write (default: standard output)")
	cmd.Flags().BoolVar(asJSON, "json", false, "print the document, which is JSON")
}

func writeDocument(w io.Writer, out string, document []byte, asJSON bool) error {
	if out == "" || asJSON {
		_, err := w.Write(document)
		return err
	}
	if err := os.WriteFile(out, document, 0o644); err != nil {
		return unavailable(err)
	}
	return nil
}
