// Package wire is the folder of the wire codecs: [github.com/shoalrun/shoal/wire/h1] for HTTP/1.1,
// [github.com/shoalrun/shoal/wire/h2] for HTTP/2, and [github.com/shoalrun/shoal/wire/hpack] for its header
// compression. They take bytes and give messages (h2 reads and writes its connections, too), and know
// nothing of meshes.
package wire
