//go:build !unix

package cli

import "os"

// redirectErrors does nothing: a panic is written to the file that the process was started with.
func redirectErrors(*os.File) {}
