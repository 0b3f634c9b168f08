package workspace

// Guess is a manifest made by looking at a repository.
type Guess struct {
	File      string   // where Init writes it
	Text      []byte   // of shoal.yaml
	Sentences []string // what was guessed, and from what
}

func Look(dir string) (*Guess, error) { panic("soon") }
func Init(dir string) (*Guess, error) { panic("soon") }
