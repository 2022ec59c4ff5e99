package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

// withStore runs fn on an installation as the program itself: whoever can read its folder may.
func withStore(ctx context.Context, g *globals, f storeFlags, fn func(context.Context, *store) error) (err error) {
	log, err := g.log()
	if err != nil {
		return err
	}
	s, err := openStore(ctx, f, false, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return fn(provisioner.WithActor(ctx, provisioner.SystemActor()), s)
}

func adminCommand(g *globals) *cobra.Command {
	c := &cobra.Command{Use: "admin", Short: "Administer an installation on its own machine"}
	c.AddCommand(createUserCommand(g), apiKeyCommand(g), passwordCommand(g))
	return c
}

func createUserCommand(g *globals) *cobra.Command {
	var sf storeFlags
	var email string
	var plain bool
	c := &cobra.Command{
		Use:   "create-user NAME",
		Short: "Create a user, an administrator unless --plain; the password is read from standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), g, sf, func(ctx context.Context, s *store) error {
				pw, err := readPassword(cmd.InOrStdin(), g.stderr)
				if err != nil {
					return err
				}
				if email == "" {
					email = args[0] + "@localhost"
				}
				u, err := s.rules.CreateUser(ctx, provisioner.UserSpec{Username: args[0], Email: email, Password: pw, Admin: !plain})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(g.stdout, "created %s\n", u.Username)
				return err
			})
		},
	}
	sf.add(c)
	c.Flags().StringVar(&email, "email", "", "address; default: NAME@localhost")
	c.Flags().BoolVar(&plain, "plain", false, "no administrator")
	return c
}

func apiKeyCommand(g *globals) *cobra.Command {
	var sf storeFlags
	var fresh bool
	c := &cobra.Command{
		Use:   "apikey NAME",
		Short: "Print a user's API keys, or make another one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), g, sf, func(ctx context.Context, s *store) error {
				ctx, err := as(ctx, s, args[0])
				if err != nil {
					return err
				}
				if fresh {
					t, err := s.rules.CreateToken(ctx, provisioner.DefaultTokenName)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintln(g.stdout, provisioner.FormatKey(t))
					return err
				}
				tokens, err := s.rules.Tokens(ctx)
				if err != nil {
					return err
				}
				for _, t := range tokens {
					if _, err := fmt.Fprintln(g.stdout, provisioner.FormatKey(t)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	sf.add(c)
	c.Flags().BoolVar(&fresh, "new", false, "make another key and print it")
	return c
}

// as makes a context in which the named user acts.
func as(ctx context.Context, s *store, name string) (context.Context, error) {
	u, err := s.rules.User(ctx, name)
	if err != nil {
		return nil, err
	}
	a, err := s.rules.ActorOf(ctx, provisioner.Actor{Endpoint: "CLI"}, u)
	return provisioner.WithActor(ctx, a), err
}

func passwordCommand(g *globals) *cobra.Command {
	var sf storeFlags
	c := &cobra.Command{
		Use:   "password NAME",
		Short: "Set a user's password, read from standard input",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), g, sf, func(ctx context.Context, s *store) error {
				pw, err := readPassword(cmd.InOrStdin(), g.stderr)
				if err != nil {
					return err
				}
				return s.rules.SetPassword(ctx, args[0], pw)
			})
		},
	}
	sf.add(c)
	return c
}

// readPassword takes one line: an argument would be seen by every user of the machine.
func readPassword(in io.Reader, prompt io.Writer) (string, error) {
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprint(prompt, "password (shown while you type): ")
		}
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usagef("standard input holds no password")
	}
	return line, nil
}

func exportCommand(g *globals) *cobra.Command {
	var sf storeFlags
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the database to standard output; it holds secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd.Context(), g, sf, func(ctx context.Context, s *store) error {
				w := bufio.NewWriterSize(g.stdout, 1<<20)
				if err := s.db.Export(ctx, w); err != nil {
					return err
				}
				return w.Flush()
			})
		},
	}
	sf.add(c)
	return c
}

func importCommand(g *globals) *cobra.Command {
	var sf storeFlags
	c := &cobra.Command{
		Use:   "import",
		Short: "Read what export wrote into an empty database, of either engine; images are copied apart (folder content)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			log, err := g.log()
			if err != nil {
				return err
			}
			dsn, err := sf.dsn()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(sf.dir, 0o700); err != nil {
				return err
			}
			db, err := storage.Open(cmd.Context(), dsn, storage.Options{Log: log})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, db.Close()) }()
			return db.Import(cmd.Context(), bufio.NewReaderSize(cmd.InOrStdin(), 1<<20))
		},
	}
	sf.add(c)
	return c
}
