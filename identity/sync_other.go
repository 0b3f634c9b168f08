//go:build !unix

package identity

// syncDir does nothing: Windows cannot sync a directory, and NTFS journals renames.
func syncDir(string) error { return nil }
