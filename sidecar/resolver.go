package sidecar

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/shoalrun/shoal/fleet"
)

const (
	dnsTTL     = 5    // seconds
	dnsUDPSize = 1232 // bytes of an answer that no path fragments (DNS flag day 2020)
)

// resolver answers the DNS queries of one application. Every name has an address here: those of
// services their own, those outside the fleet one each, so that a connection tells which name
// it was meant for. What is beyond addresses (MX, TXT, SRV, HTTPS) exists for none.
type resolver struct {
	m       *Manager
	service string
	egress  []fleet.HostPort
	v6      bool // the namespace has IPv6
}

// ServeDNS answers one query (dns.Handler).
func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := r.answer(q)
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = udpSize(q)
	}
	a.Truncate(size)
	_ = w.WriteMsg(a) // who asked asks again
}

// udpSize is what the asker takes, at least 512 (RFC 6891 section 6.2.5).
func udpSize(q *dns.Msg) int {
	opt := q.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), dnsUDPSize)
}

func (r *resolver) answer(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	a.RecursionAvailable = true
	if opt := q.IsEdns0(); opt != nil {
		a.SetEdns0(dnsUDPSize, false)
		if opt.Version() != 0 {
			a.Rcode = dns.RcodeBadVers
			return a
		}
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		a.Rcode = dns.RcodeNotImplemented
	case len(q.Question) != 1:
		a.Rcode = dns.RcodeFormatError
	case q.Question[0].Qclass != dns.ClassINET && q.Question[0].Qclass != dns.ClassANY:
		a.Rcode = dns.RcodeRefused
	default:
		r.fill(a, q.Question[0])
	}
	return a
}

// fill answers a question. An answer without records carries a SOA, or resolvers would not
// remember it (RFC 2308 section 3).
func (r *resolver) fill(a *dns.Msg, q dns.Question) {
	switch q.Qtype {
	case dns.TypeAXFR, dns.TypeIXFR:
		a.Rcode = dns.RcodeRefused
		return
	case dns.TypePTR:
		r.fillPTR(a, q)
	case dns.TypeANY: // RFC 8482 section 4.2
		a.Answer = append(a.Answer, &dns.HINFO{Hdr: header(q, dns.TypeHINFO), Cpu: "RFC8482"})
	default:
		r.fillAddress(a, q)
	}
	if len(a.Answer) == 0 && a.Rcode != dns.RcodeServerFailure {
		a.Ns = append(a.Ns, soa())
	}
}

func header(q dns.Question, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: dnsTTL}
}

func soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: dnsTTL},
		Ns:  "shoal.", Mbox: "nobody.invalid.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: dnsTTL,
	}
}

func (r *resolver) fillAddress(a *dns.Msg, q dns.Question) {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	address := q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA
	if !address && name != "" {
		return // exists, without records of that type; nothing is allocated for it
	}
	v4, v6, rcode := r.resolve(name)
	a.Rcode = rcode
	if v4.IsValid() && q.Qtype == dns.TypeA {
		a.Answer = append(a.Answer, &dns.A{Hdr: header(q, dns.TypeA), A: net.IP(v4.AsSlice())})
	}
	if v6.IsValid() && r.v6 && q.Qtype == dns.TypeAAAA {
		a.Answer = append(a.Answer, &dns.AAAA{Hdr: header(q, dns.TypeAAAA), AAAA: net.IP(v6.AsSlice())})
	}
}

// resolve returns the addresses of a name in lower case, without its last dot.
func (r *resolver) resolve(name string) (v4, v6 netip.Addr, rcode int) {
	switch {
	case name == "":
		return v4, v6, dns.RcodeSuccess
	case name == "localhost" || strings.HasSuffix(name, ".localhost"): // RFC 6761 section 6.3
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), dns.RcodeSuccess
	case strings.HasSuffix(name, ".invalid") || !hostname(name): // RFC 6761 section 6.4
		return v4, v6, dns.RcodeNameError
	}
	if index, ok := r.m.cfg.Proxy.Lookup(r.service, r.withoutSearch(name)); ok {
		v4, v6 = r.m.cfg.Ranges.Virtual(index, false)
		return v4, v6, dns.RcodeSuccess
	}
	v4, v6, err := r.m.names.lookup(r.service, name)
	if err != nil {
		return v4, v6, dns.RcodeServerFailure
	}
	return v4, v6, dns.RcodeSuccess
}

// hostname reports whether a name could be a host's: no empty label, no strange character, no address.
func hostname(name string) bool {
	if len(name) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, notInHostname) {
			return false
		}
	}
	return true
}

func notInHostname(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

// withoutSearch takes a search domain of this host off a name of one label: an application that
// brought its own resolv.conf asks for inventory.corp.example. A name that the manifest lists as egress
// is meant as it stands.
func (r *resolver) withoutSearch(name string) string {
	for _, domain := range r.m.search {
		label, ok := strings.CutSuffix(name, "."+domain)
		if ok && !strings.Contains(label, ".") && !r.declaredEgress(name) {
			return label
		}
	}
	return name
}

func (r *resolver) declaredEgress(name string) bool {
	return slices.ContainsFunc(r.egress, func(h fleet.HostPort) bool { return h.Host == name })
}

// hostSearch returns the search domains of this host (resolv.conf(5)).
func hostSearch() []string {
	var domains []string
	if c, err := dns.ClientConfigFromFile("/etc/resolv.conf"); err == nil {
		domains = c.Search
	}
	if name, err := os.Hostname(); err == nil {
		_, domain, _ := strings.Cut(name, ".")
		domains = append(domains, domain)
	}
	for i, d := range domains {
		domains[i] = strings.ToLower(strings.Trim(d, "."))
	}
	return slices.DeleteFunc(domains, func(d string) bool { return d == "" })
}

// fillPTR names what a virtual address stands for.
func (r *resolver) fillPTR(a *dns.Msg, q dns.Question) {
	addr, ok := reverse(strings.ToLower(q.Name))
	if !ok {
		a.Rcode = dns.RcodeNameError
		return
	}
	name, ok := r.nameOf(addr)
	if !ok {
		a.Rcode = dns.RcodeNameError
		return
	}
	a.Answer = append(a.Answer, &dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: dns.Fqdn(name)})
}

func (r *resolver) nameOf(a netip.Addr) (string, bool) {
	if a.IsLoopback() {
		return "localhost", true
	}
	if name, ok := r.m.names.nameOf(a); ok {
		return name, true
	}
	index, names, ok := r.m.cfg.Ranges.Index(a)
	if !ok || names {
		return "", false
	}
	return r.m.serviceOf(index)
}

// Indexes of the broker's names; those of services begin at 16.
const (
	indexEvents = 1
	indexPubsub = 2
	indexNATS   = 3
)

func (m *Manager) serviceOf(index uint16) (string, bool) {
	switch index {
	case indexEvents:
		return fleet.Events, true
	case indexPubsub:
		return fleet.Pubsub, true
	case indexNATS:
		return fleet.NATS, true
	}
	snapshot := m.cfg.Proxy.Snapshot()
	if snapshot == nil {
		return "", false
	}
	i := slices.IndexFunc(snapshot.Services, func(s *fleet.Service) bool { return s.Index == index })
	if i < 0 {
		return "", false
	}
	return snapshot.Services[i].Name, true
}

// reverse reads the address in a name of in-addr.arpa or ip6.arpa (RFC 1035 section 3.5, RFC 3596
// section 2.5).
func reverse(name string) (netip.Addr, bool) {
	if v4, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(v4, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	v6, ok := strings.CutSuffix(name, ".ip6.arpa.")
	labels := strings.Split(v6, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(labels)
	var b strings.Builder
	for i, l := range labels {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(l)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil && a.Is6()
}
