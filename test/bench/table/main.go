// Table prints the list of measures in a JSON file as a table.
//
//	test/bench/run.sh table FILE
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/shoalrun/shoal/test/bench/rows"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "table:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("which file? `make bench` writes test/bench/out/latest.json")
	}
	list, err := rows.Load(args[0])
	if err != nil {
		return err
	}
	return rows.Print(os.Stdout, list)
}
