// Command mkimage builds Ingot's images (or finds them in the cache) and prints the directory that holds them:
//
//	ingot image import "$(go run ./lab/image/mkimage)"
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/ingot-metal/ingot/lab/image"
)

func main() {
	cache := flag.String("cache", "", "cache directory (default $XDG_CACHE_HOME/ingot/images)")
	quiet := flag.Bool("q", false, "print nothing but the directory")
	install := flag.Bool("install", true, "install missing packages when root")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var log io.Writer = os.Stderr
	if *quiet {
		log = io.Discard
	}
	dir, err := image.Build(ctx, image.Options{CacheDir: *cache, Install: *install, Log: log})
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
	fmt.Println(dir)
}
