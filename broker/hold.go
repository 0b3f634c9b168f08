package broker

// holdWrites waits until nothing is being written, and keeps it so until release is called: publishes wait in their queues, and so does
// whatever else would change a stream. Order of the locks: a trim waits for commits, an Install and a removal of a subscription save cursors.
func (b *Broker) holdWrites() (release func()) {
	b.trimming.Lock()
	b.installing.Lock()
	b.flush.saving.Lock()
	b.schedules.saving.Lock()
	b.writing.Lock()
	return func() {
		b.writing.Unlock()
		b.schedules.saving.Unlock()
		b.flush.saving.Unlock()
		b.installing.Unlock()
		b.trimming.Unlock()
	}
}
