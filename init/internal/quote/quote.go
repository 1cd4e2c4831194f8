// Package quote owns the guest's runtime log and its evidence. Append and extend are one act under one owner, and evidence
// is made from the same state, so a quote never shows another log than the one it travels with.
package quote
