// Command custody is the part of a guest that judges another guest, in two roles that init starts:
//
//	custody lender    beside a custodian: judges who asks for the secret, and passes on what the custodian lends
//	custody borrower  beside a guest that serves: judges the lender, takes the loan, hands it to init, and renews it;
//	                  beside a custodian that takes the secret over from another: judges that one, takes it, and says when it is sealed
//
// It carries the verifier, which no other program of a guest does, and has no more than what it needs for that: sockets that init opened,
// and a secret while it passes.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/attest/ratls/guest"
	"chrysalis/runtime/custody/internal/lending"
	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/role"
)

func main() {
	os.Exit(role.Main(os.Args[1:], map[role.Role]role.Run{role.Lender: runLender, role.Borrower: runBorrower}))
}

// knowledge is what the guest knows of itself before it has asked its hardware.
type knowledge struct {
	measured []byte
	image    handover.Image
	list     []byte // of the host's
}

func know(settings role.Settings) (k knowledge, err error) {
	if k.measured, err = os.ReadFile(settings[role.Measured]); err != nil {
		return k, fmt.Errorf("reading measured config: %w", err)
	}
	image, err := os.ReadFile(settings[role.Image])
	if err != nil {
		return k, err
	}
	if k.image, err = handover.ParseImage(image); err != nil {
		return k, err
	}
	if file := settings[role.List]; file != "" {
		k.list, err = os.ReadFile(file)
	}
	return k, err
}

// confined takes the streams, gives up everything else, and has the guest's hardware say what the guest is.
func (k knowledge) confined(r role.Role, settings role.Settings, files role.Files) (side *lending.Side, quotes *role.QuoteStream,
	loans net.Conn, err error) {
	conn, err := net.FileConn(files[role.Quotes])
	if err != nil {
		return nil, nil, nil, fmt.Errorf("taking quote socket: %v", err)
	}
	if loans, err = net.FileConn(files[role.Loans]); err != nil {
		return nil, nil, nil, fmt.Errorf("taking stream of loans: %v", err)
	}
	files[role.Quotes].Close()
	files[role.Loans].Close()
	if err := confine.Process(confine.Options{User: r.User(), Root: settings[role.Chroot], Calls: confine.Network}); err != nil {
		return nil, nil, nil, err
	}
	quotes = role.NewQuotes(conn)
	own, err := quotes.Ask(evidence.Request{})
	if err != nil {
		return nil, nil, nil, err
	}
	side, err = lending.NewSide(own, k.measured, k.image, nil)
	return side, quotes, loans, err
}

// runLender answers borrowers until the guest ends.
func runLender(ctx context.Context, settings role.Settings, files role.Files) error {
	own, err := know(settings)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(files[role.Listener])
	if err != nil {
		return fmt.Errorf("taking listener: %v", err)
	}
	files[role.Listener].Close()
	side, quotes, loans, err := own.confined(role.Lender, settings, files)
	if err != nil {
		return err
	}
	attested, err := guest.NewServer(quotes.Ask, nil)
	if err != nil {
		return err
	}
	lender := lending.NewLender(side, attested, func(c role.LoanCall) (role.Answer, role.Loan, error) { return role.AskLoan(loans, c) })
	server := lender.Server()
	server.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(os.Stderr, nil), slog.LevelInfo)
	defer context.AfterFunc(ctx, func() { server.Close() })()
	role.Say(files[role.Status], role.Ready)
	return server.Serve(tls.NewListener(lending.Limit(listener), lender.TLSConfig()))
}

// runBorrower takes the loan, hands it to init, and renews it until the guest ends; or takes a secret over for init.
func runBorrower(ctx context.Context, settings role.Settings, files role.Files) error {
	own, err := know(settings)
	if err != nil {
		return err
	}
	peer, err := net.FileConn(files[role.Peer])
	if err != nil {
		return fmt.Errorf("taking connection: %v", err)
	}
	files[role.Peer].Close()
	status := files[role.Status]
	side, quotes, loans, err := own.confined(role.Borrower, settings, files)
	if err != nil {
		return err
	}
	if side.Custodian() {
		return takeOver(ctx, peer, side, own.list, quotes.Ask, loans, status)
	}
	loan, err := lending.Borrow(ctx, peer, side, own.list, quotes.Ask)
	if err != nil {
		role.Say(status, refusal(err))
		return err
	}
	role.Say(status, role.Ready)
	kept := make(chan error, 1)
	go func() { kept <- loan.Keep(ctx) }()
	served := make(chan error, 1)
	go func() { served <- role.ServeLoans(loans, handsOn(ctx, loan)) }()
	select {
	case err = <-kept:
		role.Say(status, role.LoanLost)
	case err = <-served: // init is gone, or says what it has no business to
	}
	return err
}

// refusal is the word for a secret that was not given.
func refusal(err error) role.Word {
	if errors.Is(err, lending.ErrHeld) {
		return role.LoanHeld
	}
	return role.LoanRefused
}

// takeOver does for init what it asks: to take the secret over, and to say that it is sealed. A custodian that has its secret already is
// asked the latter alone.
func takeOver(ctx context.Context, peer net.Conn, side *lending.Side, list []byte, quote lending.Quote, loans net.Conn, status io.Writer) error {
	giver, err := lending.Reach(ctx, peer, side, list, quote)
	if err != nil {
		role.Say(status, role.LoanRefused)
		return err
	}
	role.Say(status, role.Ready)
	err = role.ServeLoans(loans, func(c role.LoanCall) (role.Answer, role.Loan, error) {
		switch c.Call {
		case role.CallMove:
			loan, err := giver.Move(ctx)
			if err != nil {
				role.Say(status, refusal(err))
				return 0, role.Loan{}, err
			}
			return role.AnswerDone, loan, nil
		case role.CallMoved:
			err := giver.Moved(ctx, c.Number, c.Proof)
			switch {
			case errors.Is(err, lending.ErrSilent):
				slog.Error("telling who gave the secret", "error", err)
				return role.AnswerHeld, role.Loan{}, nil // it may have heard
			case err != nil:
				slog.Error("telling who gave the secret", "error", err)
				return role.AnswerNotHeld, role.Loan{}, nil
			}
			return role.AnswerDone, role.Loan{}, nil
		}
		return 0, role.Loan{}, fmt.Errorf("call %d is none of a custodian's that takes a secret over", c.Call)
	})
	if err != nil {
		slog.Error("taking the secret over", "error", err)
	}
	loans.Close()
	<-ctx.Done() // it has no more to do, and its end would be the guest's
	return err
}

// backLimit bounds how long the guest's end waits for the loan to be given back.
const backLimit = time.Second

// handsOn answers init: the loan once, and what becomes of it.
func handsOn(ctx context.Context, loan *lending.Loan) func(role.LoanCall) (role.Answer, role.Loan, error) {
	handed := false
	return func(c role.LoanCall) (role.Answer, role.Loan, error) {
		if c.Call == role.CallLend && !handed {
			handed = true
			return role.AnswerDone, loan.Loan, nil
		}
		if c.Call == role.CallLend || c.Number != loan.Number {
			return role.AnswerNotHeld, role.Loan{}, nil
		}
		if c.Call == role.CallBack {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, backLimit)
			defer cancel()
		}
		answer, err := loan.Call(ctx, c.Call)
		return answer, role.Loan{}, err
	}
}
