//go:build unix

package cli_test

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// screen is as much of a terminal as the live table uses: lines that wrap, a cursor that moves up,
// erasing, and colours, which it counts.
type screen struct {
	mu            sync.Mutex
	columns, rows int
	lines         [][]rune // all that was ever there; the screen is the last rows of it
	top           int      // the screen's first line
	row, column   int      // of the cursor, in lines
	colours       int
	pending       []byte
}

func newScreen(columns, rows int) *screen {
	return &screen{columns: columns, rows: rows, lines: [][]rune{nil}}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, b...)
	for len(s.pending) > 0 {
		n := s.next()
		if n == 0 {
			break // half of a sequence
		}
		s.pending = s.pending[n:]
	}
	return len(b), nil
}

// next takes one character or sequence and returns its length, or 0 where it is not complete.
func (s *screen) next() int {
	p := string(s.pending)
	if !strings.HasPrefix(p, "\x1b[") {
		if p[0] == '\x1b' || !utf8.FullRuneInString(p) {
			return 0
		}
		r, n := utf8.DecodeRuneInString(p)
		s.put(r)
		return n
	}
	end := strings.IndexFunc(p[2:], func(r rune) bool { return r >= '@' && r <= '~' })
	if end < 0 {
		return 0
	}
	s.control(p[2:2+end], p[2+end])
	return 2 + end + 1
}

func (s *screen) control(args string, final byte) {
	n, _ := strconv.Atoi(args)
	switch final {
	case 'A':
		s.row = max(s.row-max(n, 1), s.top)
	case 'H':
		s.row, s.column = s.top, 0
	case 'J':
		s.erase(n)
	case 'm':
		s.colours++
	}
}

func (s *screen) erase(n int) {
	from := s.row
	if n == 2 {
		from = s.top
	}
	for i := from; i < len(s.lines); i++ {
		s.lines[i] = nil
	}
}

func (s *screen) put(r rune) {
	switch {
	case r == '\r':
		s.column = 0
		return
	case r == '\n':
		s.down()
		return
	case r < ' ':
		return
	}
	if s.column == s.columns {
		s.column = 0
		s.down()
	}
	line := s.lines[s.row]
	for len(line) <= s.column {
		line = append(line, ' ')
	}
	line[s.column] = r
	s.lines[s.row] = line
	s.column++
}

func (s *screen) down() {
	s.row++
	if s.row == len(s.lines) {
		s.lines = append(s.lines, nil)
	}
	s.top = max(s.top, s.row-s.rows+1)
}

func (s *screen) resize(columns, rows int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.columns, s.rows = columns, rows
	s.top = max(s.row-rows+1, 0)
}

// text is what can be seen, without the spaces at the ends of lines.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.lines[s.top:] {
		b.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
