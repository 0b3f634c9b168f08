//go:build !unix

package process

// syncDir has nothing to do: a folder cannot be synced here, and its file system journals renames.
func syncDir(string) error { return nil }
