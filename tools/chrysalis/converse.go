package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/charmbracelet/x/term"

	"chrysalis/runtime/client"
)

const (
	// maxLineBytes bounds what one line of a conversation holds.
	maxLineBytes = 256 << 10
	// maxTurns bounds what is sent again with each line; the guest's limits of tokens end most conversations long before.
	maxTurns = 256
)

const conversationHelp = `  /verify       verify the guest anew, over another connection
  /receipt      receipt and charge of the last answer
  /save FOLDER  write the last answer with its proof
  /new          forget what was said
  /quit         end; so does the end of the input
Ctrl-C ends an answer that comes, and is paid for as far as it came.
`

// converse asks line by line. A guest that is not accepted any more, or an answer that is not proven, ends it; what a guest declines, or an
// answer that was cut, leaves the conversation as it was before the line.
func (t *talk) converse() error {
	in, out, notes := t.cmd.InOrStdin(), t.cmd.OutOrStdout(), t.cmd.ErrOrStderr()
	prompt := ""
	if f, ok := in.(*os.File); ok && term.IsTerminal(f.Fd()) {
		prompt = "> "
		m := t.guest.Result().Config()
		fmt.Fprintf(notes, "%s on a verified guest. /help says what there is besides asking.\n", printable(cmp.Or(t.f.model, m.Service.Names()[0])))
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLineBytes)
	var said []client.Message
	var last *client.Answer
	for fmt.Fprint(notes, prompt); lines.Scan(); fmt.Fprint(notes, prompt) {
		line := strings.TrimSpace(lines.Text())
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "":
		case !strings.HasPrefix(line, "/"):
			answer, err := t.turn(append(said, client.Message{Role: "user", Content: line}))
			if answer == nil {
				if err != nil {
					return err
				}
				continue
			}
			last = answer
			said = append(said, client.Message{Role: "user", Content: line}, client.Message{Role: "assistant", Content: answer.Content})
			if err != nil {
				return err
			}
			if len(said) >= 2*maxTurns {
				return unavailable(fmt.Errorf("the conversation has %d turns, and no more are sent", maxTurns))
			}
		case word == "/quit":
			return nil
		case word == "/new":
			said = nil
		case word == "/verify":
			if err := t.again(); err != nil {
				return err
			}
			fmt.Fprintln(notes, "accepted, over a new connection")
		case word == "/receipt" || word == "/save":
			if last == nil {
				fmt.Fprintln(notes, "there is no answer yet")
			} else if word == "/receipt" {
				printProof(out, last)
			} else if dir := strings.TrimSpace(rest); dir == "" {
				fmt.Fprintln(notes, "/save wants a folder")
			} else if err := saveAnswer(dir, last, t.payer); err != nil {
				fmt.Fprintf(notes, "chrysalis: %v\n", err)
			}
		case word == "/help":
			fmt.Fprint(notes, conversationHelp)
		default:
			fmt.Fprintf(notes, "there is no %s; /help says what there is\n", printable(word))
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return exitError{exitUsage, fmt.Errorf("a line has more than %d bytes", maxLineBytes)}
	}
	return lines.Err()
}

// again verifies the guest over a new connection, which takes the place of the old one.
func (t *talk) again() error {
	guest, err := t.dial()
	if err != nil {
		return err
	}
	t.guest.Close()
	t.guest = guest
	return nil
}

// turn asks once. Without an answer and without an error the line counts for nothing.
func (t *talk) turn(messages []client.Message) (*client.Answer, error) {
	ctx, stop := signal.NotifyContext(t.cmd.Context(), os.Interrupt)
	defer stop()
	known, forgotten := t.known()
	answer, err := t.ask(ctx, messages)
	var declined *client.Declined
	var cut *client.Cut
	switch {
	case err == nil:
		return answer, t.remember(known, forgotten, answer)
	case errors.As(err, &declined), errors.As(err, &cut), errors.Is(ctx.Err(), context.Canceled) && t.cmd.Context().Err() == nil:
		fmt.Fprintf(t.cmd.ErrOrStderr(), "chrysalis: %v\n", spoken(err))
		return nil, nil
	}
	return nil, t.failed(err)
}
