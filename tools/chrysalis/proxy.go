package main

import (
	"fmt"
	"log/slog"
	"net"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/tools/internal/proxy"
)

// proxyFlags are proxy's own.
type proxyFlags struct {
	remote                remoteFlags
	payer                 payerFlags
	listen, receipts      string
	origins               []string
	remoteClients, asJSON bool
}

func newProxy() *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use:   "proxy URL… --policy FILE",
		Short: "A plain OpenAI endpoint on this machine, in front of verified guests",
		Long: "Verifies each guest before the first byte, and seals what local programs ask to one of them, through any balancer or proxy that ends\n" +
			"TLS on the way. Answers are opened, judged against the attested keys, and passed on as they come; the end of one that is not proven is\n" +
			"not. Guests are verified anew when their keys are replaced. What a guest has begun with is asked of no other. The table at /status says\n" +
			"who answers under which measurement, and so do the headers Chrysalis-Guest, -Release, -Platform, -Machine and -Config of each answer.\n\n" +
			"Any OpenAI client works unchanged: OPENAI_BASE_URL=http://127.0.0.1:8080/v1, and any key (of a guest that settles on chain its own, or --account); Anthropic's with\n" +
			"ANTHROPIC_BASE_URL=http://127.0.0.1:8080. Pages of other origins, and requests by another name than this machine's, are refused.\n\n" +
			"At / is a page that verifies a guest by itself, in the browser, and seals what is typed there: this program carries it and reads nothing.",
		Example: "  chrysalis proxy https://127.0.0.1:8443 --policy policy.json --roots build/guest/tpm-maker.pem\n" +
			"  chrysalis proxy https://a.example https://b.example --policy policy.json --receipts receipts --cors http://localhost:3000",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runProxy(cmd, f, args) },
	}
	f.remote.add(cmd)
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to listen on")
	cmd.Flags().BoolVar(&f.remoteClients, "insecure-remote-clients", false, "listen on an address of other machines too: they ask in the clear, and in your name")
	cmd.Flags().StringArrayVar(&f.origins, "cors", nil, "origin of a page on this machine that may ask, such as http://localhost:3000 (repeatable)")
	cmd.Flags().StringVar(&f.receipts, "receipts", "", "folder that keeps receipt and charge of each answer and the evidence behind them, without its text (check with: chrysalis receipt verify)")
	f.payer.add(cmd)
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "log in JSON")
	return cmd
}

func runProxy(cmd *cobra.Command, f proxyFlags, guests []string) error {
	host, _, err := net.SplitHostPort(f.listen)
	if err != nil {
		return exitError{exitUsage, fmt.Errorf("--listen: %w", err)}
	}
	if ip := net.ParseIP(host); !f.remoteClients && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return exitError{exitUsage, fmt.Errorf("--listen %s: others could reach it; --insecure-remote-clients allows that", f.listen)}
	}
	if f.payer.contract != "" {
		if _, err := ton.Parse(f.payer.contract); err != nil {
			return exitError{exitUsage, fmt.Errorf("--client: %w", err)}
		}
	}
	_, key, err := f.payer.read()
	if err != nil {
		return err
	}
	most, err := f.payer.coefficient()
	if err != nil {
		return err
	}
	remote, err := f.remote.open()
	if err != nil {
		return err
	}
	handler := slog.Handler(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	if f.asJSON {
		handler = slog.NewJSONHandler(cmd.ErrOrStderr(), nil)
	}
	settings, err := f.pageSettings()
	if err != nil {
		return unavailable(err)
	}
	p, err := proxy.New(proxy.Config{
		Page: proxy.Page(), PageSettings: settings,
		Guests: guests, Attest: remote, Origins: f.origins, Receipts: f.receipts, Key: key, MaxCoefficient: most, Log: slog.New(handler),
		Payer: func(m config.Measured) (ton.Address, error) {
			if m.Service.Price.Payment != config.PayCharge {
				return ton.Address{}, nil // of several guests some may be free
			}
			payer, _, err := f.payer.of(m)
			return payer, err
		},
	})
	if err != nil {
		return exitError{exitUsage, err}
	}
	if err := p.Verify(cmd.Context()); err != nil {
		return refusalOf(err, f.remote.trusted())
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return unavailable(fmt.Errorf("listening: %w", err))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "listening on http://%s/v1\n", l.Addr())
	if err := p.Serve(cmd.Context(), l); err != nil {
		return unavailable(err)
	}
	return nil
}

// pageSettings is what the page asks for: what this proxy asks for too.
func (f *proxyFlags) pageSettings() ([]byte, error) {
	var s struct {
		Policy string `json:"policy"`
		Roots  struct {
			VTPM   string `json:"vtpm,omitzero"`
			TDX    string `json:"tdx,omitzero"`
			SEVSNP string `json:"sevsnp,omitzero"`
		} `json:"roots"`
		ReleaseList string `json:"releaseList,omitzero"`
		Payer       string `json:"payer,omitzero"`
	}
	s.Payer = f.payer.contract
	for _, of := range []struct {
		file string
		text *string
	}{{f.remote.policy, &s.Policy}, {f.remote.roots, &s.Roots.VTPM}, {f.remote.tdxRoot, &s.Roots.TDX}, {f.remote.snpRoot, &s.Roots.SEVSNP}, {f.remote.list, &s.ReleaseList}} {
		if of.file == "" {
			continue
		}
		text, err := readInput(of.file)
		if err != nil {
			return nil, err
		}
		*of.text = string(text)
	}
	return json.Marshal(s)
}
