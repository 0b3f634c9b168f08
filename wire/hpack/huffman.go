package hpack

// lengths are how many bits each byte takes (RFC 7541 appendix B), the letter a for 5 to z for 30. The code
// is canonical, so that they are all of it; the end-of-string symbol, of 30 bits, is its last.
const lengths = "isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhf" +
	"ibccccccccccccccccccccccdcdioijbkabababbbaccbbbabcbaabccccckgjix" +
	"prpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrs" +
	"vvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwv"

// step is what four bits lead to from a node of the code's tree.
type step struct {
	next, symbol uint8
	emits, fails bool
}

// huffman is the tree, in steps; whole are its nodes at which a string may end: what leads there from the
// root are at most seven bits, all ones (RFC 7541 section 5.2).
var huffman, whole = makeHuffman()

func makeHuffman() (steps [256][16]step, whole [256]bool) {
	tree := makeTree()
	for node := range steps {
		for bits := range 16 {
			steps[node][bits] = tree.walk(node, bits)
		}
	}
	for node, ones := 0, 0; ones < 8; ones++ {
		whole[node] = true
		node = tree[node][1]
	}
	return steps, whole
}

// tree has for each node what a 0 and a 1 lead to: another node, or the complement of a symbol.
type tree [256][2]int

const endOfString = 256

func makeTree() *tree {
	t, code, nodes := &tree{}, 0, 1
	for n := 5; n <= 30; n++ {
		for symbol := range lengths {
			if int(lengths[symbol]-'a')+5 == n {
				nodes = t.insert(code, n, symbol, nodes)
				code++
			}
		}
		if n == 30 {
			t.insert(code, n, endOfString, nodes)
		}
		code <<= 1
	}
	return t
}

func (t *tree) insert(code, n, symbol, nodes int) int {
	node := 0
	for i := n - 1; i > 0; i-- {
		next := &t[node][code>>i&1]
		if *next == 0 {
			*next = nodes
			nodes++
		}
		node = *next
	}
	t[node][code&1] = ^symbol
	return nodes
}

// walk takes four bits; no symbol has fewer than five, so that they complete one at most.
func (t *tree) walk(node, bits int) (s step) {
	for i := 3; i >= 0; i-- {
		node = t[node][bits>>i&1]
		switch {
		case node >= 0:
		case ^node == endOfString:
			return step{fails: true}
		default:
			s.emits, s.symbol = true, uint8(^node)
			node = 0
		}
	}
	s.next = uint8(node)
	return s
}

// appendHuffman appends what p stands for, if that is a string.
func appendHuffman(dst, p []byte) ([]byte, bool) {
	node := uint8(0)
	for _, b := range p {
		s := huffman[node][b>>4]
		if s.emits {
			dst = append(dst, s.symbol)
		}
		if s.fails {
			return dst, false
		}
		s = huffman[s.next][b&15]
		if s.emits {
			dst = append(dst, s.symbol)
		}
		if s.fails {
			return dst, false
		}
		node = s.next
	}
	return dst, whole[node]
}
