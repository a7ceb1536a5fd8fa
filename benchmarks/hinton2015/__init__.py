"""The experiments of Hinton, Vinyals, Dean 2015 on MNIST."""
