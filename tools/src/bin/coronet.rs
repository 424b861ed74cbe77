//! The `coronet` command.

fn main() -> std::process::ExitCode {
    coronet_tools::cli::main()
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
