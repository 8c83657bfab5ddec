// Command empty is what an empty Go program costs.
package main

func main() {}
