package attesttest

import (
	"fmt"
	"slices"
	"testing"
)

// ForExample is a testing.TB for Example functions, which get none: what is made for tests works in them, too. done ends
// what was started with it.
func ForExample() (t testing.TB, done func()) {
	e := &example{}
	return e, func() {
		for _, end := range slices.Backward(e.ends) {
			end()
		}
	}
}

type example struct {
	testing.TB // nil: a method that is not below panics
	ends       []func()
}

func (e *example) Helper()            {}
func (e *example) Cleanup(end func()) { e.ends = append(e.ends, end) }
func (e *example) Error(args ...any)  { panic(fmt.Sprint(args...)) }
func (e *example) Fatal(args ...any)  { panic(fmt.Sprint(args...)) }
