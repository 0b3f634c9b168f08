package nats

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits of what a client sends.
const (
	maxLine    = 4096     // bytes of a control line, as nats-server has it
	maxHeader  = 64 << 10 // bytes of a message's headers
	maxSubject = 1024     // bytes
)

// op is what a client sent.
type op struct {
	verb    string // in capitals
	subject string // of PUB, HPUB, SUB
	reply   string // of PUB, HPUB; the queue group of SUB
	sid     string // of SUB, UNSUB
	most    int    // of UNSUB; 0: at once
	header  []byte // of HPUB
	data    []byte // of PUB and HPUB: the caller's to keep. Of CONNECT: valid until the next read
}

var (
	errLine    = errors.New("Maximum Control Line Exceeded")
	errPayload = errors.New("Maximum Payload Violation")
	errSyntax  = errors.New("Unknown Protocol Operation")
)

// readOp reads one operation. Of messages larger than maxData nothing is read but their line.
func readOp(r *bufio.Reader, maxData int) (op, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && len(line) > maxLine && !bytes.HasPrefix(line, []byte("CONNECT")) {
		return op{}, errLine
	}
	if err != nil {
		return op{}, err
	}
	line = bytes.TrimRight(line, "\r\n")
	verb, rest, _ := bytes.Cut(line, []byte(" "))
	o := op{verb: string(bytes.ToUpper(bytes.TrimSpace(verb)))}
	args := bytes.Fields(rest)
	switch o.verb {
	case "PUB", "HPUB":
		return o, o.message(r, args, maxData)
	case "SUB":
		return o, o.subscription(args)
	case "UNSUB":
		return o, o.unsubscription(args)
	case "CONNECT":
		o.data = bytes.TrimSpace(rest)
		return o, nil
	case "PING", "PONG", "+OK", "-ERR", "":
		return o, nil
	}
	return o, errSyntax
}

// message reads `PUB subject [reply] size` or `HPUB subject [reply] header size`, and what follows.
func (o *op) message(r *bufio.Reader, args [][]byte, maxData int) error {
	sizes := 1
	if o.verb == "HPUB" {
		sizes = 2
	}
	if len(args) != sizes+1 && len(args) != sizes+2 {
		return errSyntax
	}
	o.subject = string(args[0])
	if len(args) == sizes+2 {
		o.reply = string(args[1])
	}
	header := 0
	if sizes == 2 {
		n, ok := size(args[len(args)-2])
		if !ok {
			return errSyntax
		}
		header = n
	}
	total, ok := size(args[len(args)-1])
	switch {
	case !ok || header > total:
		return errSyntax
	case header > maxHeader || total-header > maxData:
		return errPayload
	}
	whole := make([]byte, total+2)
	if _, err := io.ReadFull(r, whole); err != nil {
		return err
	}
	if string(whole[total:]) != "\r\n" {
		return errSyntax
	}
	o.header, o.data = whole[:header:header], whole[header:total:total]
	return nil
}

func size(text []byte) (int, bool) {
	n, err := strconv.ParseUint(string(text), 10, 31)
	return int(n), err == nil
}

// subscription reads `SUB subject [queue] sid`.
func (o *op) subscription(args [][]byte) error {
	if len(args) != 2 && len(args) != 3 {
		return errSyntax
	}
	o.subject, o.sid = string(args[0]), string(args[len(args)-1])
	if len(args) == 3 {
		o.reply = string(args[1])
	}
	return nil
}

// unsubscription reads `UNSUB sid [most]`.
func (o *op) unsubscription(args [][]byte) error {
	if len(args) != 1 && len(args) != 2 {
		return errSyntax
	}
	o.sid = string(args[0])
	if len(args) == 1 {
		return nil
	}
	most, ok := size(args[1])
	if !ok {
		return errSyntax
	}
	o.most = most
	return nil
}

// checkSubject says why text is no subject, or nil. A literal one has no wildcards.
func checkSubject(text string, literal bool) error {
	if text == "" || len(text) > maxSubject {
		return fmt.Errorf("a subject has 1 to %d bytes", maxSubject)
	}
	tokens := bytes.Split([]byte(text), []byte("."))
	for i, t := range tokens {
		wild := string(t) == "*" || string(t) == ">"
		if len(t) == 0 || literal && wild || string(t) == ">" && i != len(tokens)-1 {
			return fmt.Errorf("%q is no subject", text)
		}
	}
	return nil
}
