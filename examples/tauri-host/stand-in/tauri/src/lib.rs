//! The few signatures of Tauri 2 that the Rust of docs/tauri.md uses, and nothing behind them: with
//! these a test checks that page without Tauri's hundreds of crates.

use std::path::{Path, PathBuf};
pub use tauri_macros::command;

#[derive(Debug)]
pub struct Error;

impl std::fmt::Display for Error {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

pub struct State<'a, T>(&'a T);

impl<T> std::ops::Deref for State<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0
    }
}

pub struct PathResolver;

impl PathResolver {
    pub fn resolve(&self, _: impl AsRef<Path>, _: path::BaseDirectory) -> Result<PathBuf> {
        todo!()
    }
    pub fn app_data_dir(&self) -> Result<PathBuf> {
        todo!()
    }
}

pub trait Manager {
    fn state<T: Send + Sync + 'static>(&self) -> State<'_, T> {
        todo!()
    }
    fn path(&self) -> &PathResolver {
        todo!()
    }
}

#[derive(Clone)]
pub struct AppHandle;

impl Manager for AppHandle {}

pub struct App;

impl Manager for App {}

impl App {
    pub fn handle(&self) -> &AppHandle {
        todo!()
    }
    pub fn run(self, _: impl FnMut(&AppHandle, RunEvent) + 'static) {}
}

#[non_exhaustive]
pub enum RunEvent {
    Exit,
}

pub mod path {
    pub enum BaseDirectory {
        Resource,
    }
}

pub mod ipc {
    pub struct Channel<T>(std::marker::PhantomData<fn(T)>);

    impl<T: serde::Serialize> Channel<T> {
        pub fn send(&self, _: T) -> crate::Result<()> {
            todo!()
        }
    }
}

pub mod async_runtime {
    use std::{future::Future, pin::Pin, task::Context, task::Poll};

    pub struct JoinHandle<T>(std::marker::PhantomData<T>);

    impl<T> Future for JoinHandle<T> {
        type Output = crate::Result<T>;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<crate::Result<T>> {
            todo!()
        }
    }

    pub fn spawn_blocking<R: Send + 'static>(
        _: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        todo!()
    }
}

pub struct Plugin;

pub struct Configuration;

#[derive(Default)]
pub struct Builder;

impl Builder {
    pub fn plugin(self, _: Plugin) -> Self {
        self
    }
    pub fn manage<T: Send + Sync + 'static>(self, _: T) -> Self {
        self
    }
    pub fn setup<F>(self, _: F) -> Self
    where
        F: FnOnce(&mut App) -> std::result::Result<(), Box<dyn std::error::Error>> + Send + 'static,
    {
        self
    }
    pub fn invoke_handler(self, _: ()) -> Self {
        self
    }
    pub fn build(self, _: Configuration) -> Result<App> {
        todo!()
    }
}

#[macro_export]
macro_rules! generate_handler {
    [$($command:ident),*] => {{ $(let _ = $command;)* }};
}

#[macro_export]
macro_rules! generate_context {
    () => {
        $crate::Configuration
    };
}
