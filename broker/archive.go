package broker

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// A backup is one file: frames of a kind (one byte), a length (varint) and that many bytes, and at the end the SHA-256 of all that is
// before. Kinds and fields are added, never changed; archiveFormat counts up when an older Shoal could not read the rest right.
//
//	'h' JSON of archiveHead        'p' JSON of archivePart: what follows is of it
//	'm' the length of a subject (varint), the subject without its stream's prefix, the data
//	'v' the length of a key (varint), the key, a value of the store         'e' the end; empty
const archiveFormat = 1

type archiveHead struct {
	Format int       `json:"format"`
	Fleet  string    `json:"fleet"`
	Time   time.Time `json:"time"` // of the state that it holds
}

type archivePart struct {
	Name string `json:"name"`
	Last uint64 `json:"last"` // no message of the stream has a higher sequence
}

// frameMost bounds what a frame that is read may hold, in bytes.
const frameMost = maxPayload + 1<<20

type archiveWriter struct {
	out *bufio.Writer
	sum hash.Hash
}

func newArchiveWriter(w io.Writer) *archiveWriter {
	a := &archiveWriter{sum: sha256.New()}
	a.out = bufio.NewWriterSize(io.MultiWriter(w, a.sum), 1<<20)
	return a
}

func (a *archiveWriter) frame(kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	_, err := a.out.Write(binary.AppendUvarint([]byte{kind}, uint64(size)))
	for _, p := range parts {
		if err == nil {
			_, err = a.out.Write(p)
		}
	}
	return err
}

func (a *archiveWriter) value(kind byte, v any) error {
	data, err := json.Marshal(v)
	if err == nil {
		err = a.frame(kind, data)
	}
	return err
}

func (a *archiveWriter) pair(kind byte, name string, data []byte) error {
	return a.frame(kind, binary.AppendUvarint(nil, uint64(len(name))), []byte(name), data)
}

// end writes the end, and the sum of everything to w.
func (a *archiveWriter) end(w io.Writer) error {
	err := a.frame('e')
	if err == nil {
		err = a.out.Flush()
	}
	if err == nil {
		_, err = w.Write(a.sum.Sum(nil))
	}
	return err
}

var errArchive = errors.New("the file is no backup of Shoal's, or it is cut off or damaged")

// readArchive calls each for every frame of a backup. It returns an error where the sum at its end is not that of the file: only then what each was
// told is known to be right, so that a file is read once to check it before it is read to be used.
func readArchive(r io.Reader, each func(kind byte, data []byte) error) error {
	sum := sha256.New()
	in := bufio.NewReaderSize(r, 1<<20)
	for first := true; ; first = false {
		kind, data, err := readFrame(in, sum)
		if err != nil {
			return err
		}
		if first {
			if err := checkHead(kind, data); err != nil {
				return err
			}
		}
		if kind == 'e' {
			break
		}
		if err := each(kind, data); err != nil {
			return err
		}
	}
	rest, err := io.ReadAll(io.LimitReader(in, sha256.Size+1))
	if err != nil || !bytes.Equal(rest, sum.Sum(nil)) {
		return fmt.Errorf("%w: its checksum is wrong", errArchive)
	}
	return nil
}

func checkHead(kind byte, data []byte) error {
	var h archiveHead
	if kind != 'h' || json.Unmarshal(data, &h) != nil || h.Format < 1 {
		return errArchive
	}
	if h.Format > archiveFormat {
		return fmt.Errorf("the backup has format %d, and this Shoal reads formats up to %d: use the Shoal that wrote it, or a newer one", h.Format, archiveFormat)
	}
	return nil
}

func readFrame(in *bufio.Reader, sum hash.Hash) (kind byte, data []byte, err error) {
	if kind, err = in.ReadByte(); err != nil {
		return 0, nil, errArchive
	}
	size, err := binary.ReadUvarint(in)
	if err != nil || size > frameMost {
		return 0, nil, errArchive
	}
	data, err = io.ReadAll(io.LimitReader(in, int64(size)))
	if err != nil || uint64(len(data)) != size {
		return 0, nil, errArchive
	}
	sum.Write(binary.AppendUvarint([]byte{kind}, size))
	sum.Write(data)
	return kind, data, nil
}

// splitPair is the inverse of archiveWriter.pair.
func splitPair(data []byte) (name string, rest []byte, err error) {
	size, n := binary.Uvarint(data)
	if n <= 0 || size > uint64(len(data)-n) {
		return "", nil, errArchive
	}
	return string(data[n : n+int(size)]), data[n+int(size):], nil
}
