package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/erofs/go-erofs"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"chrysalis/attest"
	"chrysalis/attest/release"
	"chrysalis/measure/cocoon"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
	"chrysalis/measure/verity"
	"chrysalis/measure/volume"
)

func newVolumeCard() *cobra.Command {
	cmd := &cobra.Command{Use: "card", Short: "Signed cards that say what a model's volume holds, and catalogues of them", Args: cobra.NoArgs}
	cmd.AddCommand(newCardMake(), newCardSign(), newCardShow(), newCardVerify(), newCardCollect())
	return cmd
}

func newCardMake() *cobra.Command {
	var c release.Card
	var id, key, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "make VOLUME --id NAME@REVISION --licence TEXT [--key FILE] [-o FILE]", Short: "Read a model's volume and write its " +
			"card", Args: cobra.ExactArgs(1),
		Long: "Reads the whole volume, checks it against its own root hash, hashes each file in it, and writes a card with the name that " +
			"you give it. How the\n" +
			"model is quantised, and its licence, are read out of GGUF files and safetensors where those tell. With --key the card is signed, " +
			"by a key as\n" +
			"for releases (release key).",
		Example: "  chrysalis volume card make model.img --id qwen2.5-7b-instruct@a09a354 --licence Apache-2.0 --key release.pem -o card.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			var ok bool
			if c.Name, c.Revision, ok = cutID(id); !ok {
				return fmt.Errorf("--id %q: want NAME@REVISION", id)
			}
			signed, err := makeCard(cmd, args[0], c)
			if err != nil {
				return err
			}
			if key != "" {
				private, err := readPrivateKey(key)
				if err != nil {
					return err
				}
				if signed, err = release.SignCard(signed, private); err != nil {
					return exitError{exitUsage, err}
				}
			}
			return writeDocument(cmd.OutOrStdout(), out, signed, asJSON)
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "name and revision of the model, as NAME@REVISION")
	cmd.Flags().StringVar(&c.Licence, "licence", "", "licence, as an SPDX expression (default: what the files say)")
	cmd.Flags().StringVar(&c.Quantisation, "quantisation", "", "quantisation, such as Q4_K_M (default: what the files say)")
	cmd.Flags().StringVar(&key, "key", "", "private key to sign with (make one with: chrysalis release key)")
	documentFlags(cmd, &out, &asJSON)
	_ = cmd.MarkFlagRequired("id")
	return cmd
}

// cutID cuts NAME@REVISION at its last @.
func cutID(id string) (name, revision string, ok bool) {
	at := strings.LastIndexByte(id, '@')
	if at < 1 || at == len(id)-1 {
		return "", "", false
	}
	return id[:at], id[at+1:], true
}

// makeCard completes the card by what the volume holds.
func makeCard(cmd *cobra.Command, file string, c release.Card) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, unavailable(err)
	}
	defer f.Close()
	show, end := byteProgress(cmd.ErrOrStderr())
	ref, files, tree, err := readVolume(cmd.Context(), f, show)
	end()
	if errors.Is(err, verity.ErrCorrupt) {
		return nil, rejected(err)
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("reading %s: %w", file, err))
	}
	licence, quantisation, err := modelFacts(tree)
	if err != nil {
		return nil, unavailable(fmt.Errorf("reading %s: %w", file, err))
	}
	if c.Licence == "" {
		c.Licence = licence
	}
	if c.Quantisation == "" {
		c.Quantisation = quantisation
	}
	switch {
	case c.Licence == "":
		return nil, exitError{exitUsage, errors.New("the files do not say their licence: give it by --licence")}
	case c.Quantisation == "":
		return nil, exitError{exitUsage, errors.New("the files do not say how they are quantised: give it by --quantisation")}
	}
	c.Format, c.Root, c.Blocks, c.Files = release.CardFormat, ref.Root, ref.Blocks, files
	for _, f := range files {
		c.Size += f.Size
	}
	signed, err := release.EncodeCard(c)
	if err != nil {
		return nil, exitError{exitUsage, err}
	}
	return signed, nil
}

// readVolume checks a whole volume against its own root hash, and hashes each file in it, as many at a time as there are processors.
func readVolume(ctx context.Context, f *os.File, show func(string, int64, int64)) (ref config.Volume, files []release.CardFile,
	tree fs.FS, err error) {
	info, err := f.Stat()
	if err != nil {
		return ref, nil, nil, err
	}
	root, _, err := verity.Name(f, info.Size())
	if err == nil {
		ref, err = volume.Check(f, info.Size(), root)
	}
	if err != nil {
		return ref, nil, nil, err
	}
	// The image reads what was checked, and not the tree behind it.
	if tree, err = erofs.Open(io.NewSectionReader(f, 0, int64(ref.Blocks)*verity.BlockSize)); err != nil {
		return ref, nil, nil, err
	}
	var total int64
	err = fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files = append(files, release.CardFile{Name: name, Size: info.Size()})
			total += info.Size()
		}
		return err
	})
	if err != nil {
		return ref, nil, nil, err
	}
	slices.SortFunc(files, func(a, b release.CardFile) int { return strings.Compare(a.Name, b.Name) })
	err = hashAll(ctx, len(files), func(i int, count func(int64)) (err error) {
		files[i].SHA256, err = hashFileOf(tree, files[i].Name, files[i].Size, count)
		return err
	}, func(done int64) { show("hashing files", done, total) })
	return ref, files, tree, err
}

// hashAll does n pieces of work, as many at a time as there are processors, and returns the first error. Each counts the bytes that it
// has done; progress is called by one goroutine at a time.
func hashAll(ctx context.Context, n int, work func(i int, count func(int64)) error, progress func(done int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var done int64
	count := func(bytes int64) {
		mu.Lock()
		defer mu.Unlock()
		done += bytes
		progress(done)
	}
	queue := make(chan int)
	var workers sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for i := range queue {
				if err := work(i, count); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		queue <- i
	}
	close(queue)
	workers.Wait()
	return context.Cause(ctx)
}

// hashFileOf returns the SHA-256 of a file of that size.
func hashFileOf(tree fs.FS, name string, size int64, count func(int64)) (sum register.Digest, err error) {
	f, err := tree.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, tally(count)), f)
	if err == nil && n != size {
		err = fmt.Errorf("%s gave %d bytes, want %d", name, n, size)
	}
	return register.Digest(h.Sum(nil)), err
}

// tally is a writer that counts.
type tally func(int64)

func (c tally) Write(p []byte) (int, error) { c(int64(len(p))); return len(p), nil }

func newCardSign() *cobra.Command {
	return newSign("CARD", "card", "volume card show", "chrysalis volume card sign card.json", release.SignCard)
}

// readCatalogue reads a file of cards, of which a card alone is one.
func readCatalogue(file string) (k release.Catalogue, err error) {
	data, err := readInput(file)
	if err != nil {
		return k, unavailable(err)
	}
	if k, err = release.ParseCatalogue(data); err != nil {
		return k, rejected(fmt.Errorf("%s: %w", file, err))
	}
	return k, nil
}

func newCardShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show CARD|CATALOGUE", Short: "Say what cards say, without asking who signed them", Args: cobra.ExactArgs(1),
		Example: "  chrysalis volume card show catalogue.jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := readCatalogue(args[0])
			if err != nil {
				return err
			}
			type shown struct {
				release.Card
				SignedBy []string `json:"signed_by"`
				// Cocoon is the model as COCOON's network names it, and CocoonKey what its root contract lists.
				Cocoon    string          `json:"cocoon"`
				CocoonKey register.Digest `json:"cocoon_key"`
			}
			var all []shown
			for _, id := range k.Names() {
				signed, err := k.Card(id)
				if err != nil {
					return err
				}
				c, signatures, err := release.DecodeCard(signed)
				if err != nil {
					return rejected(err)
				}
				m := cocoon.Model{Name: c.Name, Revision: c.Revision, Root: c.Root}
				all = append(all, shown{c, keyIDs(signatures), m.String(), m.Key()})
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			for _, c := range all {
				printCard(cmd.OutOrStdout(), c.Card)
				fmt.Fprintf(cmd.OutOrStdout(), "  for COCOON %s\n  key %s\n", c.Cocoon, c.CocoonKey)
				for _, id := range c.SignedBy {
					fmt.Fprintf(cmd.OutOrStdout(), "  signature by %s, not checked\n", id)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printCard(w io.Writer, c release.Card) {
	fmt.Fprintf(w, "%s, %s, %s, %.1f MB in %d files\n  root %s, %d blocks\n", c.ID(), c.Quantisation, c.Licence, float64(c.Size)/1e6,
		len(c.Files), c.Root, c.Blocks)
}

// cardQuestion is whose word counts about a model, and about which.
type cardQuestion struct {
	file, id  string
	signers   []string
	threshold int
}

// judge returns the one card that is asked for, if enough signers stand for it.
func (q cardQuestion) judge() (c release.Card, signers []pubkey.Ed25519, err error) {
	k, err := readCatalogue(q.file)
	if err != nil {
		return c, nil, err
	}
	id := q.id
	if names := k.Names(); id == "" {
		if len(names) > 1 {
			return c, nil, exitError{exitUsage, fmt.Errorf("%s has %d cards: say which is meant, of %s", q.file, len(names), strings.Join(names,
				", "))}
		}
		id = names[0]
	}
	signed, err := k.Card(id)
	if err != nil {
		return c, nil, rejected(err)
	}
	keys, err := readPublicKeys(q.signers)
	if err != nil {
		return c, nil, err
	}
	c, signers, err = release.VerifyCard(signed, keys, q.threshold)
	switch {
	case errors.Is(err, attest.ErrRejected):
		return c, nil, rejected(err)
	case err != nil:
		return c, nil, exitError{exitUsage, err}
	}
	return c, signers, nil
}

func (q *cardQuestion) add(flags *pflag.FlagSet) {
	flags.StringVar(&q.file, "model-card", "", "card, or catalogue of cards, that gives the guest's model its name")
	flags.StringArrayVar(&q.signers, "card-signer", nil, "public key (file, or 64 hexadecimal digits) whose word counts about a model")
	flags.IntVar(&q.threshold, "card-threshold", 1, "how many of them must have signed the card")
}

// modelCards are the cards that a client believes, by their volumes.
type modelCards map[config.Volume]*release.Card

// named returns the cards of the file that enough signers stand for; nil where no file is given.
func (q cardQuestion) named() (modelCards, error) {
	switch {
	case q.file == "" && len(q.signers) > 0:
		return nil, errors.New("--card-signer is about a --model-card")
	case q.file == "":
		return nil, nil
	case len(q.signers) == 0:
		return nil, errors.New("--model-card needs a --card-signer: nobody's word counts unasked")
	}
	k, err := readCatalogue(q.file)
	if err != nil {
		return nil, err
	}
	cards := modelCards{}
	for _, q.id = range k.Names() {
		c, _, err := q.judge()
		if exit := (exitError{}); errors.As(err, &exit) && exit.code == exitRejected {
			continue // somebody else's: of other volumes it says nothing
		}
		if err != nil {
			return nil, err
		}
		cards[config.Volume{Root: c.Root, Blocks: c.Blocks}] = &c
	}
	if len(cards) == 0 {
		return nil, rejected(fmt.Errorf("%s: of %d cards none is signed by enough of the signers", q.file, len(k.Names())))
	}
	return cards, nil
}

// name puts names behind the volumes of the model's check.
func (m modelCards) name(checks []attest.Check) []attest.Check {
	checks = slices.Clone(checks)
	for i := range checks {
		if checks[i].Name != "config.service.model.volume" {
			continue
		}
		for volume, card := range m {
			for _, text := range []*string{&checks[i].Want, &checks[i].Got} {
				*text = strings.ReplaceAll(*text, volume.String(), card.ID())
			}
		}
	}
	return checks
}

// report is the report for machines, with the name of the model where cards tell it.
func (m modelCards) report(result *attest.Result, err error) any {
	r := attest.ReportOf(result, err)
	if result == nil || m == nil {
		return r
	}
	type known struct {
		Model        string `json:"model"` // NAME@REVISION
		Licence      string `json:"licence"`
		Quantisation string `json:"quantisation"`
	}
	var all []known
	for _, served := range result.Config().Service.Served() {
		if card := m[served.Model.Volume]; card != nil {
			all = append(all, known{card.ID(), card.Licence, card.Quantisation})
		}
	}
	if len(all) != 1 {
		return struct {
			attest.Report
			Models []known `json:"models"` // in the config's order
		}{r, all}
	}
	return struct {
		attest.Report
		known
	}{r, all[0]}
}

// cardModel is what a policy takes from a card; the zero value takes nothing.
type cardModel struct {
	id     string
	volume config.Volume
}

// model judges the card, where one is given, and puts its volume in the place of the model's file.
func (q cardQuestion) model(file *string, fileGiven bool) (m cardModel, err error) {
	switch {
	case q.file == "" && (len(q.signers) > 0 || q.id != ""):
		return m, errors.New("--card-signer and --model-id are about a --model-card")
	case q.file == "":
		return m, nil
	case len(q.signers) == 0:
		return m, errors.New("--model-card needs a --card-signer: nobody's word counts unasked")
	case fileGiven:
		return m, errors.New("--model and --model-card: give one")
	}
	c, _, err := q.judge()
	if err != nil {
		return m, err
	}
	m = cardModel{c.ID(), config.Volume{Root: c.Root, Blocks: c.Blocks}}
	*file = m.volume.String()
	return m, nil
}

// fits checks that the configs name the card's volume.
func (m cardModel) fits(configs []config.Measured) error {
	for _, c := range configs {
		var has []string
		for _, served := range c.Service.Served() {
			has = append(has, served.Model.Volume.String())
		}
		if m.id != "" && !slices.Contains(has, m.volume.String()) {
			return rejected(fmt.Errorf("the config's model is volume %s, and the card of %s says %s", strings.Join(has, " or "), m.id, m.volume))
		}
	}
	return nil
}

func newCardVerify() *cobra.Command {
	var q cardQuestion
	var image string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify CARD|CATALOGUE --signer KEY … [--threshold K] [--id NAME@REVISION] [--volume FILE]", Short: "Judge a card, and a " +
			"volume by it",
		Args: cobra.ExactArgs(1),
		Long: "Checks that K of the signers stand for the card, and with --volume that the file is the card's volume with the card's " +
			"files, byte for byte. Exit code\n" +
			"0: accepted, 1: rejected.",
		Example: "  chrysalis volume card verify catalogue.jsonl --signer a.pub --id tiny@v1 --volume build/volumes/model.img",
		RunE: func(cmd *cobra.Command, args []string) error {
			q.file = args[0]
			c, signers, err := q.judge()
			if err != nil {
				return err
			}
			if image != "" {
				if err := sameVolume(cmd, c, image); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Verdict string           `json:"verdict"`
					Card    release.Card     `json:"card"`
					Signers []pubkey.Ed25519 `json:"signers"`
				}{"accepted", c, signers})
			}
			printCard(cmd.OutOrStdout(), c)
			fmt.Fprintf(cmd.OutOrStdout(), "accepted: %d of %d signers\n", len(signers), len(q.signers))
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&q.signers, "signer", nil, "public key of a signer: file, or 64 hexadecimal digits")
	cmd.Flags().IntVar(&q.threshold, "threshold", 1, "how many of the signers must have signed")
	cmd.Flags().StringVar(&q.id, "id", "", "model whose card is meant, of several")
	cmd.Flags().StringVar(&image, "volume", "", "volume to hold against the card")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("signer")
	return cmd
}

// sameVolume reads a whole volume and compares it with its card.
func sameVolume(cmd *cobra.Command, c release.Card, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return unavailable(err)
	}
	defer f.Close()
	show, end := byteProgress(cmd.ErrOrStderr())
	ref, files, _, err := readVolume(cmd.Context(), f, show)
	end()
	if errors.Is(err, verity.ErrCorrupt) {
		return rejected(err)
	}
	if err != nil {
		return unavailable(err)
	}
	if want := (config.Volume{Root: c.Root, Blocks: c.Blocks}); ref != want {
		return rejected(fmt.Errorf("%s is volume %s, and the card of %s says %s", file, ref, c.ID(), want))
	}
	for _, f := range files {
		if !slices.Contains(c.Files, f) {
			return rejected(fmt.Errorf("%s holds %s with %d bytes and SHA-256 %s, which the card of %s does not name", file, printable(f.Name),
				f.Size, f.SHA256, c.ID()))
		}
	}
	if len(files) != len(c.Files) {
		return rejected(fmt.Errorf("%s holds %d files, and the card of %s names %d", file, len(files), c.ID(), len(c.Files)))
	}
	return nil
}

func newCardCollect() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "collect CARD|CATALOGUE … [-o FILE]", Short: "Make one catalogue of cards and catalogues", Args: cobra.MinimumNArgs(1),
		Long: "Puts cards into one file, sorted by the names of their models. A card of a later file takes the place of one of the same " +
			"model, such as the same\n" +
			"with more signatures; one that names another volume for a revision is refused. Nobody is asked who signed them.",
		Example: "  chrysalis volume card collect catalogue.jsonl card.json -o catalogue.jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			var all release.Catalogue
			for _, file := range args {
				k, err := readCatalogue(file)
				if err != nil {
					return err
				}
				for _, id := range k.Names() {
					card, err := k.Card(id)
					if err == nil {
						err = all.Add(card)
					}
					if err != nil {
						return rejected(fmt.Errorf("%s: %w", file, err))
					}
				}
			}
			encoded := all.Bytes()
			if again, err := release.ParseCatalogue(encoded); err != nil || !bytes.Equal(again.Bytes(), encoded) {
				return exitError{exitUsage, fmt.Errorf("the catalogue can't be read again: %w", err)}
			}
			return writeDocument(cmd.OutOrStdout(), out, encoded, asJSON)
		},
	}
	documentFlags(cmd, &out, &asJSON)
	cmd.Flags().Lookup("json").Usage = "print the catalogue, a line of JSON for each card"
	return cmd
}
