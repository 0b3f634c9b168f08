package nats

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadOp(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for text, want := range map[string]op{
		"PUB a.b 5\r\nhello\r\n":                 {verb: "PUB", subject: "a.b", data: []byte("hello")},
		"pub  a.b\t_INBOX.1  0 \r\n\r\n":         {verb: "PUB", subject: "a.b", reply: "_INBOX.1"},
		"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n": {verb: "HPUB", subject: "a", header: []byte("NATS/1.0\r\n\r\n"), data: []byte("hi")},
		"HPUB a r 12 12\r\nNATS/1.0\r\n\r\n\r\n": {verb: "HPUB", subject: "a", reply: "r", header: []byte("NATS/1.0\r\n\r\n")},
		"SUB a 7\r\n":                            {verb: "SUB", subject: "a", sid: "7"},
		"SUB a q 7\n":                            {verb: "SUB", subject: "a", reply: "q", sid: "7"},
		"UNSUB 7\r\n":                            {verb: "UNSUB", sid: "7"},
		"UNSUB 7 3\r\n":                          {verb: "UNSUB", sid: "7", most: 3},
		"PING\r\n":                               {verb: "PING"},
		"CONNECT {\"x\":\"" + long + "\"}\r\n":   {verb: "CONNECT", data: []byte("{\"x\":\"" + long + "\"}")},
		"PUB a 4\r\n\r\n\r\n\r\n":                {verb: "PUB", subject: "a", data: []byte("\r\n\r\n")},
	} {
		got, err := readOp(bufio.NewReaderSize(strings.NewReader(text), bufferSize), 100)
		if err != nil || got.verb != want.verb || got.subject != want.subject || got.reply != want.reply || got.sid != want.sid ||
			got.most != want.most || string(got.header) != string(want.header) || string(got.data) != string(want.data) {
			t.Errorf("%.40q is %+v (%v)", text, got, err)
		}
	}
	for text, want := range map[string]error{
		"PUB a\r\n": errSyntax, "PUB\r\n": errSyntax, "PUB a b c d\r\n": errSyntax, "PUB a -1\r\n": errSyntax, "PUB a 5x\r\n": errSyntax,
		"PUB a 99999999999\r\n": errSyntax, "PUB a 101\r\n": errPayload, "HPUB a 9 3\r\n": errSyntax, "HPUB a 70000 70001\r\n": errPayload,
		"PUB a 2\r\nabcd\r\n": errSyntax, "SUB a\r\n": errSyntax, "SUB a b c d\r\n": errSyntax, "UNSUB\r\n": errSyntax, "UNSUB 1 x\r\n": errSyntax,
		"GET / HTTP/1.1\r\n": errSyntax, "SUB " + long + " 1\r\n": errLine, strings.Repeat("x", bufferSize+1): errLine, "PUB a 5\r\nhel": io.ErrUnexpectedEOF, "": io.EOF,
	} {
		if got, err := readOp(bufio.NewReaderSize(strings.NewReader(text), bufferSize), 100); !errors.Is(err, want) {
			t.Errorf("%.40q is %+v (%v), not %v", text, got, err, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	fields, err := parseHeader([]byte("NATS/1.0\r\na: 1\r\nA:  2 \r\na: 3\r\nempty:\r\n\r\n"))
	if err != nil || fields["a"] != "1, 3" || fields["A"] != "2" || len(fields) != 3 {
		t.Errorf("%v (%v)", fields, err)
	}
	for _, bad := range []string{"HTTP/1.1\r\n\r\n", "NATS/1.0\r\nno colon\r\n\r\n", "NATS/1.0\r\n: x\r\n\r\n", "NATS/1.0\r\na b: x\r\n\r\n", "x"} {
		if fields, err := parseHeader([]byte(bad)); err == nil {
			t.Errorf("%q is %v", bad, fields)
		}
	}
	got := string(appendHeader(nil, map[string]string{"b": "2\r\nevil: 1", "a": "1", "no:name": "x"}))
	if got != "NATS/1.0\r\na: 1\r\nb: 2  evil: 1\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

func TestMatches(t *testing.T) {
	for pattern, want := range map[string]bool{
		"_INBOX.a.b": true, "_INBOX.*.b": true, "_INBOX.>": true, "_INBOX.a.*": true,
		"_INBOX.a": false, "_INBOX.a.b.c": false, "_INBOX.a.b.>": false, "_INBOX.*": false, "x.>": false,
	} {
		if matches(strings.Split(pattern, "."), "_INBOX.a.b") != want {
			t.Errorf("%s matches: %v", pattern, !want)
		}
	}
}

// Whatever a client sends, reading it ends with operations or an error, and what was read can be used.
func FuzzReadOp(f *testing.F) {
	for _, seed := range []string{"CONNECT {}\r\nPING\r\n", "PUB a.b 5\r\nhello\r\n", "HPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n", "SUB a.> q 1\r\nUNSUB 1 2\r\n", "HPUB a 20 20\r\nNATS/1.0\r\na: b\r\nc\r\n\r\n\r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(data)), bufferSize)
		for {
			o, err := readOp(in, 1<<10)
			if err != nil {
				return
			}
			if len(o.data) > 1<<10 && o.verb != "CONNECT" || len(o.header) > maxHeader {
				t.Fatalf("read %d and %d bytes", len(o.header), len(o.data))
			}
			fields, err := parseHeader(o.header)
			if err == nil && len(fields) > 0 {
				if again, err := parseHeader(appendHeader(nil, fields)); err != nil || len(again) != len(fields) {
					t.Fatalf("%v came back as %v (%v)", fields, again, err)
				}
			}
			_ = checkSubject(o.subject, true)
			_ = matches(strings.Split(o.subject, "."), o.reply)
		}
	})
}
