package fleet

// Limits is `limits` of a shoal.work: what the data paths of the fleet hold connections and messages to. A zero
// field means the default of its comment.
type Limits struct {
	Head     int      `json:"head,omitempty"`     // bytes of a request's or an answer's head; 64 KB
	Fields   int      `json:"fields,omitempty"`   // fields of a head; 256
	HeadTime Duration `json:"headTime,omitempty"` // in which a request's head must come; 1 min
	Idle     Duration `json:"idle,omitempty"`     // of silence on a connection, or within a message; 5 min
	Streams  int      `json:"streams,omitempty"`  // open at once on one HTTP/2 connection; 250
	Resets   int      `json:"resets,omitempty"`   // of streams, by one HTTP/2 connection, in a second; 1000
	Control  int      `json:"control,omitempty"`  // control frames of one HTTP/2 connection in a second; 1000
	InFlight int      `json:"inFlight,omitempty"` // exchanges in progress to one service, from one process; 10,000
	Replay   int      `json:"replay,omitempty"`   // bytes of a request's body that are kept for a retry; 64 KB
}
