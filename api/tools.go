package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
)

// GuardTools returns a listener of the connections of l, on TCP, that an operator's tool has made: a process of the same uid,
// or of root. It hands every other one to refuse, in a goroutine of its own, with what to tell it; refuse closes it.
//
// A connection from another machine, or another network namespace, has no owner here. It is let in: l is on loopback unless whoever
// runs the fleet gave another address, and that is what the address is for. Whether a connection has an owner here is known on Linux; on other
// systems every process of the machine is let in.
func GuardTools(l net.Listener, refuse func(c net.Conn, why error)) net.Listener {
	return guardedTools{l, refuse}
}

type guardedTools struct {
	net.Listener
	refuse func(net.Conn, error)
}

func (g guardedTools) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := checkTool(c); err != nil {
			go g.refuse(c, err)
			continue
		}
		return c, nil
	}
}

// errElsewhere says that a connection's other end is not on this machine, or in another network namespace of it.
var errElsewhere = errors.New("its other end is not on this machine")

// checkTool says why the process at the other end of a connection may not act as the operator, or nil.
func checkTool(c net.Conn) error {
	uid, err := peerUID(c)
	switch {
	case errors.Is(err, errElsewhere):
		return nil
	case err != nil:
		return fmt.Errorf("this port is the operator's, and whose connection this is cannot be found out: %w", err)
	case uid == 0 || int(uid) == os.Geteuid():
		return nil
	}
	return fmt.Errorf("this port is the operator's: it takes processes of %s, and this one is of %s. Run the tool as that user; a service is let in by its manifest, at its own names",
		operators(os.Geteuid()), userOf(uid))
}

// operators names the users whose processes may act as the operator of a fleet that uid runs.
func operators(uid int) string {
	if uid == 0 {
		return userOf(0)
	}
	return userOf(uint32(uid)) + " and of root"
}

// userOf names a uid for people.
func userOf(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("%s (uid %s)", u.Username, id)
	}
	return "uid " + id
}
