//go:build !unix

package control

// syncDir does nothing: Windows cannot sync a directory, and NTFS journals renames.
func syncDir(string) error { return nil }
