package main

import (
	"context"
	"fmt"
	"net"

	"chrysalis/runtime/internal/confine"
	"chrysalis/runtime/internal/custodian"
	"chrysalis/runtime/internal/journal"
	"chrysalis/runtime/role"
	"chrysalis/runtime/secret"
)

// runCustodian keeps the secret and counts its loans. The lender, which has the network, asks it.
func runCustodian(ctx context.Context, settings role.Settings, files role.Files) error {
	measured, _, err := readMeasured(settings[role.Measured])
	if err != nil {
		return err
	}
	loans, err := net.FileConn(files[role.Loans])
	if err != nil {
		return fmt.Errorf("taking stream of loans: %v", err)
	}
	files[role.Loans].Close()
	if err := confine.Process(confine.Options{User: role.Custodian.User(), Calls: append(confine.Disk, confine.Network...)}); err != nil {
		return err
	}
	status := files[role.Status]
	kept, err := role.ReceiveKept(files[role.SecretPipe])
	files[role.SecretPipe].Close()
	if err != nil {
		return err
	}
	defer kept.Secret.Wipe()
	scope, err := secret.ScopeOf(measured.Identity, kept.Secret.Instance())
	if err != nil {
		return err
	}
	key := secret.Derive(kept.Secret, secret.RoleLoans, scope)
	c, err := custodian.Open(journal.Disk{File: files[role.Journal]}, key, kept, measured.Identity.Custody.Lease(), nil)
	clear(key[:])
	if err != nil {
		role.Say(status, journal.Word(err))
		return err
	}
	defer context.AfterFunc(ctx, func() { loans.Close() })()
	role.Say(status, role.Ready)
	told := false
	answer := func(call role.LoanCall) (role.Answer, role.Loan, error) {
		a, loan, err := c.Answer(call)
		if err == nil && c.Gone() && !told {
			told = true
			role.Say(status, role.Moved)
		}
		return a, loan, err
	}
	if err := role.ServeLoans(loans, answer); err != nil && ctx.Err() == nil {
		role.Say(status, journal.Word(err))
		return err
	}
	return nil
}
