package main

import (
	"fmt"
	"strings"
	"time"

	"chrysalis/attest"
	"chrysalis/measure/register"
)

// What an operator chooses by flags, for a policy or for an appraisal, is written alike in both.

// parseDigests reads SHA-384 digests, none of which may be zeros: those stand for nothing being there.
func parseDigests(flag string, texts []string) (all []register.Digest384, err error) {
	for _, text := range texts {
		var d register.Digest384
		if err := d.UnmarshalText([]byte(text)); err != nil || d == (register.Digest384{}) {
			return nil, exitError{exitUsage, fmt.Errorf("--%s %.100q: want 96 lower-case hexadecimal digits, not all zeros", flag, text)}
		}
		all = append(all, d)
	}
	return all, nil
}

// parseIDBlocks reads IDKEY[:AUTHORKEY], the digests of the keys behind an id block.
func parseIDBlocks(texts []string) (all []attest.IDBlockRule, err error) {
	for _, text := range texts {
		digests, err := parseDigests("id-block", strings.SplitN(text, ":", 2))
		if err != nil {
			return nil, err
		}
		rule := attest.IDBlockRule{IDKeyDigest: digests[0]}
		if len(digests) == 2 {
			rule.AuthorKeyDigest = digests[1]
		}
		all = append(all, rule)
	}
	return all, nil
}

// parseDate reads a day, or a time; "" is none.
func parseDate(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		day, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		return day, exitError{exitUsage, fmt.Errorf("--%s %q: want a day like 2025-05-14", flag, text)}
	}
	return day.UTC(), nil
}
