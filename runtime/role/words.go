package role

import (
	"bufio"
	"fmt"
	"io"
	"slices"
)

// Word is what a role says on its status pipe: that it is ready, that the engine comes or goes, that the secret has gone, or why it gave up.
type Word uint8

// The words. Those of the journal are why a keeper gave up.
const (
	Ready Word = iota + 1
	EngineUp
	EngineDown
	JournalTorn       // records are missing before others
	JournalForeign    // another guest's disk, or no journal
	JournalOld        // of a layout that is not read any more
	JournalRolledBack // older than the last boot
	JournalIO         // the disk fails
	JournalFull       // the disk is too small for what must be kept
	JournalCorrupt    // a record was changed
	JournalShort      // the disk was cut short
	JournalRefused    // any other reason
	LoanRefused       // custodian or borrower did not accept the other, or the custodian was not there
	LoanHeld          // another guest has the loan, and renews it
	LoanLost          // the loan was not renewed in time
	Moved             // the secret is another custodian's
	ParamsRefused     // the root's params of the host document are not those that the config names
	ProxyOpen         // the journal's book is of another proxy than the config leads to, and that one is not emptied

	endOfWords
)

// words are the lines, by the numbers of the constants.
var words = []string{
	Ready: "ready", EngineUp: "engine-up", EngineDown: "engine-down",
	JournalTorn: "fail journal-torn", JournalForeign: "fail journal-foreign", JournalOld: "fail journal-old", JournalRolledBack: "fail journal-rolled-back",
	JournalIO: "fail journal-io", JournalFull: "fail journal-full", JournalCorrupt: "fail journal-corrupt",
	JournalShort: "fail journal-short", JournalRefused: "fail journal-refused",
	LoanRefused: "fail loan-refused", LoanHeld: "fail loan-held", LoanLost: "fail loan-lost",
	Moved: "secret-moved", ParamsRefused: "fail params-refused", ProxyOpen: "fail proxy-open",
}

// String returns the line that says the word, without its end.
func (w Word) String() string {
	if w == 0 || w >= endOfWords {
		return ""
	}
	return words[w]
}

// maxWordBytes bounds a line of a status pipe without its end.
const maxWordBytes = 64

// ParseWord parses a line of the role's status pipe. A line that the role does not have is an error.
func (r Role) ParseWord(line string) (Word, error) {
	c := r.contract()
	if i := slices.IndexFunc(c.words, func(w Word) bool { return w.String() == line }); i >= 0 {
		return c.words[i], nil
	}
	return 0, fmt.Errorf("%s said %.*q, which is no word of its", c.name, maxWordBytes, line)
}

// Say writes a word to a status pipe. A reader that is gone ends the process by its own means.
func Say(status io.Writer, w Word) { _, _ = io.WriteString(status, w.String()+"\n") }

// Listen calls heard for each word on the role's status pipe until it ends, or heard is false. A line that is no word of the
// role's is an error.
func (r Role) Listen(status io.Reader, heard func(Word) bool) error {
	lines := bufio.NewScanner(status)
	lines.Buffer(make([]byte, maxWordBytes+1), maxWordBytes+1)
	for lines.Scan() {
		word, err := r.ParseWord(lines.Text())
		if err != nil {
			return err
		}
		if !heard(word) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("listening to %s: %w", r, err)
	}
	return nil
}
