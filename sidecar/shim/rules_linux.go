package shim

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// installRules builds, in one transaction, what nft would write as
//
//	table inet shoal {
//	  chain untracked { type filter hook output priority raw;      # calls to the application
//	    meta mark 0x5ea1 notrack
//	    LOCAL saddr LOCAL daddr tcp sport != {65001, 65053} dport != {53, local needs} notrack }
//	  chain capture { type nat hook output priority dstnat;
//	    udp dport 53 redirect to :65053;  tcp dport 53 redirect to :65053
//	    LOCAL daddr tcp dport {local needs} redirect to :65001
//	    LOCAL daddr accept;               meta l4proto tcp redirect to :65001 }
//	  chain guard { type filter hook output priority filter;
//	    LOCAL daddr accept;  meta l4proto tcp accept;  reject with icmpx port-unreachable }
//	}
//
// where LOCAL is 127.0.0.0/8, ::1 and the addresses of lo. Port 53 comes before LOCAL: a program that
// read another resolv.conf asks a resolver on localhost.
func installRules(c *Setup) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "shoal"})
	r := ruleset{conn: conn, table: t, setup: c}
	r.untracked()
	r.capture()
	r.guard()
	return conn.Flush()
}

type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
	setup *Setup
}

func (r ruleset) chain(name string, kind nftables.ChainType, priority *nftables.ChainPriority) func(...[]expr.Any) {
	ch := r.conn.AddChain(&nftables.Chain{
		Name: name, Table: r.table, Type: kind, Hooknum: nftables.ChainHookOutput, Priority: priority,
	})
	return func(parts ...[]expr.Any) {
		var exprs []expr.Any
		for _, p := range parts {
			exprs = append(exprs, p...)
		}
		r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: ch, Exprs: exprs})
	}
}

// untracked spares calls to the application, and its own on loopback, the cost of conntrack.
func (r ruleset) untracked() {
	rule := r.chain("untracked", nftables.ChainTypeFilter, nftables.ChainPriorityRaw)
	notrack := []expr.Any{&expr.Notrack{}}
	rule(mark(inboundMark), notrack)
	others := append(port(srcPort, expr.CmpOpNeq, capturePort), port(srcPort, expr.CmpOpNeq, dnsPort)...)
	others = append(others, port(dstPort, expr.CmpOpNeq, 53)...)
	for _, p := range r.setup.LocalPorts {
		others = append(others, port(dstPort, expr.CmpOpNeq, p)...)
	}
	for _, l := range r.local() {
		rule(address(l, src), address(l, dst)[2:], protocol(unix.IPPROTO_TCP), others, notrack)
	}
}

func (r ruleset) capture() {
	rule := r.chain("capture", nftables.ChainTypeNAT, nftables.ChainPriorityNATDest)
	for _, p := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rule(protocol(p), port(dstPort, expr.CmpOpEq, 53), redirect(dnsPort))
	}
	for _, l := range r.local() {
		for _, p := range r.setup.LocalPorts {
			rule(address(l, dst), protocol(unix.IPPROTO_TCP), port(dstPort, expr.CmpOpEq, p), redirect(capturePort))
		}
	}
	for _, l := range r.local() {
		rule(address(l, dst), accept())
	}
	rule(protocol(unix.IPPROTO_TCP), redirect(capturePort))
}

func (r ruleset) guard() {
	rule := r.chain("guard", nftables.ChainTypeFilter, nftables.ChainPriorityFilter)
	for _, l := range r.local() {
		rule(address(l, dst), accept())
	}
	rule(protocol(unix.IPPROTO_TCP), accept())
	rule([]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}})
}

// local returns what stays inside the namespace.
func (r ruleset) local() []netip.Prefix {
	local := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.PrefixFrom(r.setup.Addr4, 32),
	}
	if r.setup.Addr6.IsValid() {
		local = append(local, netip.MustParsePrefix("::1/128"), netip.PrefixFrom(r.setup.Addr6, 128))
	}
	return local
}

func load(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

func mark(m uint32) []expr.Any { return load(expr.MetaKeyMARK, binaryutil.NativeEndian.PutUint32(m)) }

func protocol(p byte) []expr.Any { return load(expr.MetaKeyL4PROTO, []byte{p}) }

// Offsets in TCP and UDP headers (RFC 9293 section 3.1, RFC 768).
const (
	srcPort = 0
	dstPort = 2
)

func port(offset uint32, op expr.CmpOp, number uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		&expr.Cmp{Op: op, Register: 1, Data: binary.BigEndian.AppendUint16(nil, number)},
	}
}

type direction int

const (
	src direction = iota
	dst
)

// address matches the family, by its first two expressions, and then the prefix.
func address(p netip.Prefix, d direction) []expr.Any {
	family, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4) // RFC 791 section 3.1
	if p.Addr().Is6() {
		family, offset, size = unix.NFPROTO_IPV6, 8, 16 // RFC 8200 section 3
	}
	if d == dst {
		offset += size
	}
	whole := uint32(p.Bits() / 8)
	return append(load(expr.MetaKeyNFPROTO, []byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: whole},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()[:whole]},
	)
}

func redirect(to uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, to)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
