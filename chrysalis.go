// Package chrysalis is the root of the module. It holds no code: only the tests that keep the house in order, whose
// subject is the whole tree.
package chrysalis
