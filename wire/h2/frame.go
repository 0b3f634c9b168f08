package h2

import (
	"encoding/binary"
	"fmt"
)

// Frame types, flags and sizes (RFC 9113 sections 4 and 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	frameHead  = 9
	frameMax   = 16384 // SETTINGS_MAX_FRAME_SIZE that we announce, and the most that we send
	windowMax  = 1<<31 - 1
	windowInit = 65535
	idMax      = 1<<31 - 1
	tableInit  = 4096 // SETTINGS_HEADER_TABLE_SIZE before anybody says otherwise
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Code is an error code (RFC 9113 section 7).
type Code uint32

// The error codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
	"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// String returns the name that RFC 9113 gives the code.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("error code %#x", uint32(c))
}

// ConnError ends a connection whose peer broke the protocol or a limit, which Reason names. The peer
// is told the same by GOAWAY.
type ConnError struct {
	Code   Code
	Reason string
}

func (e *ConnError) Error() string {
	return fmt.Sprintf("HTTP/2 connection error: %s: %s", e.Code, e.Reason)
}

// StreamError ends a stream before both of its sides were done.
type StreamError struct {
	Code   Code
	Reason string
	// Remote says that the peer ended the stream, or the connection it was on.
	Remote bool
	// Unprocessed says that the peer vouches for not having acted on the request, so that any
	// request may be sent again (RFC 9113 section 8.7).
	Unprocessed bool
	// Lost says that the connection ended, and all of its streams with it.
	Lost bool
	// Stalled says that the stream was ended here, because the peer gave no window for [Config.Stall].
	Stalled bool
}

func (e *StreamError) Error() string {
	who := "stream ended"
	if e.Remote {
		who = "stream ended by the peer"
	}
	return fmt.Sprintf("HTTP/2 %s: %s: %s", who, e.Code, e.Reason)
}

func connError(code Code, reason string) error { return &ConnError{Code: code, Reason: reason} }

// frame is one frame as it lies in the read buffer.
type frame struct {
	typ, flags byte
	id         uint32
	payload    []byte
}

// has reports whether a flag is set.
func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

// appendFrame appends the head of a frame.
func appendFrame(p []byte, n int, typ, flags byte, id uint32) []byte {
	return append(p, byte(n>>16), byte(n>>8), byte(n), typ, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendReset(p []byte, id uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(p, 4, frameReset, 0, id), uint32(code))
}

func appendWindowUpdate(p []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(p, 4, frameWindowUpdate, 0, id), uint32(n))
}

func appendGoAway(p []byte, last uint32, code Code, reason string) []byte {
	p = appendFrame(p, 8+len(reason), frameGoAway, 0, 0)
	p = binary.BigEndian.AppendUint32(p, last)
	p = binary.BigEndian.AppendUint32(p, uint32(code))
	return append(p, reason...)
}

// unpad strips the padding of a DATA or HEADERS frame (RFC 9113 section 6.1).
func (f *frame) unpad() ([]byte, error) {
	p := f.payload
	if !f.has(flagPadded) {
		return p, nil
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, connError(ProtocolError, "padding as long as the frame")
	}
	return p[1 : len(p)-int(p[0])], nil
}
